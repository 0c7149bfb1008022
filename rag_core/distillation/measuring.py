"""What measures a student while it is trained or merged, and how its texts are read: block by block, under a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    Student: TypeAlias = SentenceTransformer | CrossEncoder

Measure = Literal["MAP", "Kendall's tau", "NDCG@10"]
Values = npt.NDArray[np.float64]
Advance = Callable[[int], object]
"""Is told how many more texts, or pairs, are read."""

BATCHES_AT_ONCE = 8  # a bar moves after each of these, and texts of like length still share their batches


def unseen(count: int) -> None:
    """Take no notice."""


class Measured(Protocol):
    """What a student is measured on while it is trained or merged.

    Attributes:
        name: for tables and curves.
        queries: how many there are.
        measures: what is measured, the one that chooses between weights first.
        guards_its_domain: whether no merge may lower it, also where it is in-domain.
    """

    guards_its_domain: ClassVar[bool]

    @property
    def name(self) -> str: ...

    @property
    def queries(self) -> int: ...

    @property
    def measures(self) -> tuple[Measure, ...]: ...

    def count(self, model: Student) -> int:
        """Return how many texts, or pairs, a student reads."""

    def measured(self, model: Student, batch_size: int, advance: Advance = unseen) -> dict[Measure, Values]:
        """Return each of `measures` for each query; shape (queries,)."""


def measure_all(
    dev_sets: Sequence[Measured], model: Student, batch_size: int, what: str
) -> list[dict[Measure, Values]]:
    """Measure dev sets one after the other, under one bar.

    Args:
        what: stands before the bar.
    """
    from tqdm import tqdm

    total = sum(dev_set.count(model) for dev_set in dev_sets)
    with tqdm(total=total, unit="text", desc=what, leave=False, disable=None) as bar:
        return [dev_set.measured(model, batch_size, bar.update) for dev_set in dev_sets]


def longest_first(texts: Iterable[str]) -> list[str]:
    """Return distinct texts in the order in which `embed` reads them with the least padding."""
    return sorted(set(texts), key=lambda text: (-len(text), text))


def half_precision(model: Student) -> torch.autocast:
    """Let a student compute in the precision that its training does."""
    import torch

    from rag_core.engines.precision import resolve_dtype

    half = resolve_dtype("auto")
    return torch.autocast(model.device.type, getattr(torch, half), enabled=half != "float32")


def embed(
    encode: Callable[..., torch.Tensor], texts: Sequence[str], batch_size: int, advance: Advance = unseen
) -> npt.NDArray[np.float32]:
    """Return the vectors of texts, each of length 1; shape (texts, dimensions).

    Args:
        encode: `encode_query` or `encode_document` of a student.
        texts: as `longest_first` orders them.
    """
    blocks = []
    for start in range(0, len(texts), BATCHES_AT_ONCE * batch_size):
        block = texts[start : start + BATCHES_AT_ONCE * batch_size]
        matrix = encode(block, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False).float()
        blocks.append((matrix / matrix.norm(dim=1, keepdim=True)).cpu().numpy())
        advance(len(block))
    return np.concatenate(blocks)
