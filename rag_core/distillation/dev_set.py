"""How well a student ranks a scored file while it is made: on labels where there are any, else by its teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, ScoredPair
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups
from rag_core.metrics.ranking import measure, rank

if TYPE_CHECKING:
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

Measure = Literal["MAP", "Kendall's tau", "NDCG@10"]
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DevSet:
    """Scored candidates of queries that are not trained on.

    Attributes:
        measure: MAP where at least one query has a positive and a negative; else the mean over queries of
            Kendall's tau-b between the student's and the teacher's scores.
        measures: `measure` and, without labels, NDCG@10 with the teacher's scores as gains (`graded_ndcg`).
    """

    path: Path
    groups: list[list[ScoredPair]]
    measure: Measure

    @property
    def measures(self) -> tuple[Measure, ...]:
        return ("MAP",) if self.measure == "MAP" else (self.measure, "NDCG@10")

    @classmethod
    def read(cls, path: Path, *, bad_rows: BadRows | None = None) -> DevSet:
        """Read a ScoredPair file.

        Raises:
            DataError: as `read_groups`, or no query has two candidates that can be compared.
        """
        groups = [group for group in read_groups(path, ScoredPair, bad_rows=bad_rows) if len(group) > 1]
        labelled = [group for group in groups if {1, 0} <= {pair.label for pair in group}]
        groups = labelled or [group for group in groups if len({pair.score for pair in group}) > 1]
        if not groups:
            raise DataError(
                "has no query with two candidates that differ in label or score",
                "Pass a file of ScoredPair records with several candidates a query",
                path=path,
            )
        return cls(path, groups, "MAP" if labelled else "Kendall's tau")

    def values(self, model: SentenceTransformer | CrossEncoder, batch_size: int) -> Values:
        """Return the measure with the scores of the model, query by query; shape (queries,)."""
        return self.measured(model, batch_size)[self.measure]

    def measured(self, model: SentenceTransformer | CrossEncoder, batch_size: int) -> dict[Measure, Values]:
        """Return each of the measures as `values` does."""
        scores = student_scores(model, self.groups, batch_size)
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
            return {"MAP": measure(samples, in_order)["MAP"]}
        from scipy.stats import kendalltau

        taus = [
            kendalltau(row, [pair.score for pair in group]).statistic
            for row, group in zip(scores, self.groups, strict=True)
        ]
        gains = [graded_ndcg(row, group) for row, group in zip(scores, self.groups, strict=True)]
        # A student that gives all candidates one score agrees with nothing.
        return {"Kendall's tau": np.nan_to_num(np.array(taus, dtype=np.float64)), "NDCG@10": np.array(gains)}


def graded_ndcg(scores: npt.ArrayLike, group: Sequence[ScoredPair]) -> float:
    """Return NDCG@10 of a query's candidates with the teacher's scores, from 0 for the lowest to 1, as gains.

    Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques"; discount log2(rank + 1), ties
    as in `metrics.rank`.
    """
    teacher = np.array([pair.score for pair in group])
    gains = (teacher - teacher.min()) / np.ptp(teacher)
    found = gains[np.argsort(rank([pair.passage for pair in group], scores))][:10]
    discounts = 1 / np.log2(np.arange(2, len(found) + 2))
    return float(found @ discounts / (np.sort(gains)[::-1][:10] @ discounts))


def student_scores(
    model: SentenceTransformer | CrossEncoder, groups: list[list[ScoredPair]], batch_size: int
) -> list[npt.NDArray[np.float32]]:
    """Return a student's score for each pair, group by group: the cosine, or a cross-encoder's raw output."""
    from sentence_transformers import CrossEncoder

    return (_logits if isinstance(model, CrossEncoder) else _cosines)(model, groups, batch_size)


def _logits(model: CrossEncoder, groups: list[list[ScoredPair]], batch_size: int) -> list[npt.NDArray[np.float32]]:
    import torch

    pairs = [(pair.query, pair.passage) for group in groups for pair in group]
    with _autocast(model):
        scores = model.predict(pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    return np.split(scores, np.cumsum([len(group) for group in groups])[:-1])


def _cosines(
    model: SentenceTransformer, groups: list[list[ScoredPair]], batch_size: int
) -> list[npt.NDArray[np.float32]]:
    with _autocast(model):
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


def _autocast(model: SentenceTransformer | CrossEncoder) -> torch.autocast:
    import torch

    from rag_core.engines.precision import resolve_dtype

    half = resolve_dtype("auto")
    return torch.autocast(model.device.type, getattr(torch, half), enabled=half != "float32")


def _embed(encode: object, texts: set[str], batch_size: int) -> dict[str, npt.NDArray[np.float32]]:
    ordered = sorted(texts)
    matrix = encode(  # type: ignore[operator]  # encode_query or encode_document
        ordered, batch_size=batch_size, convert_to_tensor=True, show_progress_bar=False
    ).float()
    matrix = (matrix / matrix.norm(dim=1, keepdim=True)).cpu().numpy()
    return dict(zip(ordered, matrix, strict=True))
