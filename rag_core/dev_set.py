"""How well a bi-encoder ranks a scored file while it is made: on labels where there are any, else by its teacher."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from rag_core.errors import DataError
from rag_core.jsonl import read_groups
from rag_core.metrics import measure
from rag_core.records import RankingSample, ScoredPair

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Measure = Literal["MAP", "Kendall's tau"]


@dataclass(frozen=True)
class DevSet:
    """Scored candidates of queries that are not trained on.

    Attributes:
        measure: MAP where at least one query has a positive and a negative; else the mean over queries of
            Kendall's tau-b between the student's and the teacher's scores.
    """

    path: Path
    groups: list[list[ScoredPair]]
    measure: Measure

    @classmethod
    def read(cls, path: Path, *, skipped: list[DataError] | None) -> DevSet:
        """Read a ScoredPair file.

        Raises:
            DataError: as `read_groups`, or no query has two candidates that can be compared.
        """
        groups = [group for group in read_groups(path, ScoredPair, skipped=skipped) if len(group) > 1]
        labelled = [group for group in groups if {1, 0} <= {pair.label for pair in group}]
        groups = labelled or [group for group in groups if len({pair.score for pair in group}) > 1]
        if not groups:
            raise DataError(
                "has no query with two candidates that differ in label or score",
                "Pass a file of ScoredPair records with several candidates a query",
                path=path,
            )
        return cls(path, groups, "MAP" if labelled else "Kendall's tau")

    def values(self, model: SentenceTransformer, batch_size: int) -> npt.NDArray[np.float64]:
        """Return the measure with the cosines of the model, query by query; shape (queries,)."""
        scores = cosines(model, self.groups, batch_size)
        if self.measure == "MAP":
            samples = [
                RankingSample(
                    query=group[0].query,
                    positive=[pair.passage for pair in group if pair.label == 1],
                    negative=[pair.passage for pair in group if pair.label == 0],
                )
                for group in self.groups
            ]
            in_order = [
                [score for label in (1, 0) for score, pair in zip(row, group, strict=True) if pair.label == label]
                for row, group in zip(scores, self.groups, strict=True)
            ]
            return measure(samples, in_order)["MAP"]
        from scipy.stats import kendalltau

        taus = [
            kendalltau(row, [pair.score for pair in group]).statistic
            for row, group in zip(scores, self.groups, strict=True)
        ]
        # A student that gives all candidates one score agrees with nothing.
        return np.nan_to_num(np.array(taus, dtype=np.float64))


def cosines(
    model: SentenceTransformer, groups: list[list[ScoredPair]], batch_size: int
) -> list[npt.NDArray[np.float32]]:
    """Return a model's cosine for each pair, group by group."""
    import torch

    from rag_core.engines.precision import resolve_dtype

    half = resolve_dtype("auto")
    with torch.autocast(model.device.type, getattr(torch, half), enabled=half != "float32"):
        vectors = {
            role: _embed(encode, texts, batch_size)
            for role, encode, texts in (
                ("query", model.encode_query, {group[0].query for group in groups}),
                ("passage", model.encode_document, {pair.passage for group in groups for pair in group}),
            )
        }
    return [
        np.stack([vectors["passage"][pair.passage] for pair in group]) @ vectors["query"][group[0].query]
        for group in groups
    ]


def _embed(encode: object, texts: set[str], batch_size: int) -> dict[str, npt.NDArray[np.float32]]:
    ordered = sorted(texts)
    matrix = encode(  # type: ignore[operator]  # encode_query or encode_document
        ordered, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
    ).float()
    matrix = (matrix / matrix.norm(dim=1, keepdim=True)).cpu().numpy()
    return dict(zip(ordered, matrix, strict=True))
