"""How well a student ranks a scored file while it trains: by its labels, or without labels by the teacher's scores.

All that does not depend on the student is prepared once, when the file is read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from rag_core.base.errors import DataError
from rag_core.base.records import RankingSample, ScoredPair, SoftLabels, Triplet
from rag_core.distillation.measuring import (
    BATCHES_AT_ONCE,
    Advance,
    Measure,
    Values,
    embed,
    half_precision,
    longest_first,
    unseen,
)
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_groups
from rag_core.metrics.ranking import measure, rank

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

    from rag_core.distillation.measuring import Student

logger = logging.getLogger(__name__)

Scores = list[npt.NDArray[np.float32]]
Groups = Sequence[Sequence[ScoredPair]]


class Candidates:
    """The candidates of some queries, which a student scores again and again."""

    def __init__(self, groups: Groups) -> None:
        self._pairs = [(pair.query, pair.passage) for group in groups for pair in group]
        self._starts = np.cumsum([len(group) for group in groups])[:-1]
        self._queries = longest_first({group[0].query for group in groups})
        self._passages = longest_first({passage for _, passage in self._pairs})
        query_rows = {text: row for row, text in enumerate(self._queries)}
        passage_rows = {text: row for row, text in enumerate(self._passages)}
        self._rows = [(query_rows[group[0].query], [passage_rows[pair.passage] for pair in group]) for group in groups]

    def count(self, model: Student) -> int:
        """Return how many texts a bi-encoder reads, or pairs a cross-encoder."""
        from sentence_transformers import CrossEncoder

        return len(self._pairs) if isinstance(model, CrossEncoder) else len(self._queries) + len(self._passages)

    def scores(self, model: Student, batch_size: int, advance: Advance = unseen) -> Scores:
        """Return a student's score of each candidate, query by query: the cosine, or a cross-encoder's raw output."""
        from sentence_transformers import CrossEncoder

        return (self._logits if isinstance(model, CrossEncoder) else self._cosines)(model, batch_size, advance)

    def _logits(self, model: CrossEncoder, batch_size: int, advance: Advance) -> Scores:
        import torch

        scores = np.empty(len(self._pairs), dtype=np.float32)
        order = sorted(range(len(self._pairs)), key=lambda i: -len(self._pairs[i][0]) - len(self._pairs[i][1]))
        with half_precision(model):
            for start in range(0, len(order), BATCHES_AT_ONCE * batch_size):
                places = order[start : start + BATCHES_AT_ONCE * batch_size]
                scores[places] = model.predict(
                    [self._pairs[i] for i in places],
                    batch_size=batch_size,
                    activation_fn=torch.nn.Identity(),
                    show_progress_bar=False,
                )
                advance(len(places))
        return np.split(scores, self._starts)

    def _cosines(self, model: SentenceTransformer, batch_size: int, advance: Advance) -> Scores:
        with half_precision(model):
            queries = embed(model.encode_query, self._queries, batch_size, advance)
            passages = embed(model.encode_document, self._passages, batch_size, advance)
        return [passages[places] @ queries[row] for row, places in self._rows]


class Labels:
    """Which candidates of some queries are relevant. Measured is MAP; candidates without a label are left out."""

    measures: tuple[Measure, ...] = ("MAP",)

    def __init__(self, groups: Groups) -> None:
        self._samples = [
            RankingSample(
                query=group[0].query,
                positive=[pair.passage for pair in group if pair.label == 1],
                negative=[pair.passage for pair in group if pair.label == 0],
            )
            for group in groups
        ]
        self._order = [
            [place for label in (1, 0) for place, pair in enumerate(group) if pair.label == label] for group in groups
        ]

    def measure(self, scores: Scores) -> dict[Measure, Values]:
        """Return the average precision of each query; shape (queries,)."""
        in_order = [row[places] for row, places in zip(scores, self._order, strict=True)]
        return {"MAP": measure(self._samples, in_order)["MAP"]}


class TeacherRanking:
    """A teacher's scores of one query's candidates, which do not all have the same score."""

    def __init__(self, group: Sequence[ScoredPair]) -> None:
        self._passages = [pair.passage for pair in group]
        self._scores = np.array([pair.score for pair in group])
        self._gains = (self._scores - self._scores.min()) / np.ptp(self._scores)
        best = np.sort(self._gains)[::-1][:10]
        self._discounts = 1 / np.log2(np.arange(2, len(best) + 2))
        self._ideal = best @ self._discounts

    def tau(self, scores: npt.ArrayLike) -> float:
        """Return Kendall's tau-b between a student's scores and the teacher's; 0 where the student's are all equal."""
        from scipy.stats import kendalltau

        tau = float(kendalltau(scores, self._scores).statistic)
        return 0.0 if math.isnan(tau) else tau

    def ndcg(self, scores: npt.ArrayLike) -> float:
        """Return NDCG@10 of a student's scores, with the teacher's as gains, from 0 for its lowest to 1.

        Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques"; discount log2(rank + 1), ties
        as in `metrics.ranking.rank`.
        """
        found = self._gains[np.argsort(rank(self._passages, scores))][:10]
        return float(found @ self._discounts / self._ideal)


class TeacherRankings:
    """How a teacher ranks the candidates of some queries. Measured is how far a student agrees."""

    measures: tuple[Measure, ...] = ("Kendall's tau", "NDCG@10")

    def __init__(self, groups: Groups) -> None:
        self._rankings = [TeacherRanking(group) for group in groups]

    def measure(self, scores: Scores) -> dict[Measure, Values]:
        """Return `TeacherRanking.tau` and `TeacherRanking.ndcg` of each query; shape (queries,)."""
        pairs = list(zip(self._rankings, scores, strict=True))
        return {
            "Kendall's tau": np.array([ranking.tau(row) for ranking, row in pairs]),
            "NDCG@10": np.array([ranking.ndcg(row) for ranking, row in pairs]),
        }


class TripletOrders:
    """Which of two passages of a query a teacher ranks higher, as its triplets say."""

    measures: tuple[Measure, ...] = ("Kendall's tau",)

    def __init__(self, triplets: Sequence[Sequence[Triplet]], groups: Groups) -> None:
        self._pairs = []
        for of_query, group in zip(triplets, groups, strict=True):
            place = {pair.passage: row for row, pair in enumerate(group)}
            pairs = [(place[triplet.positive], place[triplet.negative]) for triplet in of_query]
            self._pairs.append(np.array(pairs).T)

    def measure(self, scores: Scores) -> dict[Measure, Values]:
        """Return Kendall's tau over the pairs of each query: those that agree minus those that do not, as a share."""
        signs = [np.sign(row[better] - row[worse]) for row, (better, worse) in zip(scores, self._pairs, strict=True)]
        return {"Kendall's tau": np.array([float(row.mean()) for row in signs])}


@dataclass(frozen=True)
class DevSet:
    """Scored candidates of queries that are not trained on.

    Attributes:
        queries: how many there are.
        reference: labels, where at least one query has a positive and a negative; else the teacher's scores, or the
            order in its triplets.
    """

    guards_its_domain: ClassVar[bool] = False

    path: Path
    queries: int
    candidates: Candidates
    reference: Labels | TeacherRankings | TripletOrders

    @property
    def name(self) -> str:
        """That of its file."""
        return self.path.name

    @property
    def measures(self) -> tuple[Measure, ...]:
        """What is measured: MAP; without labels Kendall's tau-b, and beside it NDCG@10."""
        return self.reference.measures

    @property
    def measure(self) -> Measure:
        """The measure that chooses between weights."""
        return self.measures[0]

    @classmethod
    def read(cls, path: Path, *, bad_rows: BadRows | None = None) -> DevSet:
        """Read a ScoredPair file.

        Raises:
            DataError: as `read_groups`, or no query has two candidates that can be compared.
        """
        groups = [group for group in read_groups(path, ScoredPair, bad_rows=bad_rows) if len(group) > 1]
        if any(pair.unscored for group in groups for pair in group):
            logger.warning(
                "WARNING: %s was prescreened: only the candidates that were scored are measured. Do not compare its "
                "figures with those of a file that was scored whole.",
                path,
            )
        labelled = [group for group in groups if {1, 0} <= {pair.label for pair in group}]
        groups = labelled or [group for group in groups if len({pair.score for pair in group}) > 1]
        if not groups:
            raise DataError(
                "has no query with two candidates that differ in label or score",
                "Pass ScoredPair records with several candidates per query",
                path=path,
            )
        return cls(path, len(groups), Candidates(groups), Labels(groups) if labelled else TeacherRankings(groups))

    @classmethod
    def held_out(cls, path: Path, groups: Sequence[SoftLabels | Sequence[Triplet]]) -> list[DevSet]:
        """Take queries of a training file that are left out of a training: one dev set, none where none can be used.

        Args:
            groups: of one kind.
        """
        lists = [group for group in groups if isinstance(group, SoftLabels) and len(set(group.scores)) > 1]
        if lists:
            scored = [
                [
                    ScoredPair(group.query_id, group.query, *row)
                    for row in zip(group.passages, group.scores, strict=True)
                ]
                for group in lists
            ]
            return [cls(path, len(scored), Candidates(scored), TeacherRankings(scored))]
        triplets = [group for group in groups if not isinstance(group, SoftLabels)]
        scored = [
            [ScoredPair(of_query[0].query_id, of_query[0].query, text, 0.0) for text in _passages(of_query)]
            for of_query in triplets
        ]
        return [cls(path, len(scored), Candidates(scored), TripletOrders(triplets, scored))] if scored else []

    def values(self, model: Student, batch_size: int) -> Values:
        """Return `measure` for each query, by the scores of the model; shape (queries,)."""
        return self.measured(model, batch_size)[self.measure]

    def count(self, model: Student) -> int:
        """Return how many texts, or pairs, a student reads."""
        return self.candidates.count(model)

    def measured(self, model: Student, batch_size: int, advance: Advance = unseen) -> dict[Measure, Values]:
        """Return each of `measures` as `values` does."""
        return self.reference.measure(self.candidates.scores(model, batch_size, advance))


def _passages(triplets: Sequence[Triplet]) -> list[str]:
    return list(dict.fromkeys(text for triplet in triplets for text in (triplet.positive, triplet.negative)))
