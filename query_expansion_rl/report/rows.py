"""The ways that are compared, each as a ranking of every query: what each expansion does, alone and with the query."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from query_expansion_rl.records import Expansion, Ranking, Topic
from query_expansion_rl.report.written import Written
from query_expansion_rl.retrieval.searching import ExpandedQuery, Searcher
from query_expansion_rl.retrieval.workspace import DEPTH, Workspace
from query_expansion_rl.rewards.gate import passes
from query_expansion_rl.rewards.ndcg import Gains, ndcg
from rag_core.base.errors import DataError
from rag_core.base.outside_text import quoted
from rag_core.files.kept_times import KeptTimes
from rag_core.metrics.ranking import Places
from rag_core.retrieval.fusion import fuse

Kind = Literal["retriever", "training-free", "policy", "expansion", "oracle"]
Gate = Literal["none", "teacher"]
Way = Literal[
    "alone", "concat", "gated", "rrf", "dense", "best", "best gated", "best dense", "oracle", "other", "other gated"
]
"""What is done with an expansion; `dense` is the fusion with dense search of the query, `other` a second retriever."""


@dataclass(frozen=True)
class Row:
    """One way, over some queries.

    Attributes:
        kind: "oracle" for what nobody can have: it chooses by the answers.
        places: best first, -1 where nothing was found; shape (queries, results).
        base: the row that it is to be better than before all others: the retriever without any expansion.
        method: who wrote the expansions; empty for none.
        texts: query id -> the expansion that it was searched with; empty where the query stood alone.
        tokens: written for a query, in the mean.
        search_ms: CPU milliseconds of a query's searches.
        write_ms: milliseconds of the language model, as measured by who ran it.
    """

    name: str
    kind: Kind
    places: Places
    base: str
    method: str = ""
    way: Way | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    tokens: float | None = None
    search_ms: float | None = None
    write_ms: float | None = None


@dataclass(frozen=True)
class Searchers:
    """The user's retriever, and what stands beside it.

    Attributes:
        own_name, own: the retriever that expansions are for.
        dense: ranks by the vectors of the queries alone; `None` without vectors, or where the retriever has them.
        other_name, other: a second retriever, which gets the same expansions.
    """

    own_name: str
    own: Searcher
    dense: Searcher | None = None
    other_name: str | None = None
    other: Searcher | None = None


@dataclass(frozen=True)
class _Found:
    """What a search found for every query, and the CPU milliseconds of one."""

    places: Places
    ms: float


class Comparison:
    """Makes the rows of some queries, all of one split."""

    def __init__(
        self,
        workspace: Workspace,
        topics: Sequence[Topic],
        searchers: Searchers,
        times: KeptTimes,
        *,
        query_weight: float,
        gate: Gate,
    ) -> None:
        """Search for the queries alone."""
        self.topics = topics
        self.place_of = {key: place for place, key in enumerate(workspace.corpus.documents)}
        judged = workspace.gains()
        self.gains: list[Gains] = [
            {self.place_of[key]: gain for key, gain in judged[topic.query_id].items() if key in self.place_of}
            for topic in topics
        ]
        self._searchers, self._times = searchers, times
        self._weight, self._gate = query_weight, gate
        self._known_ms, self._teacher = workspace.milliseconds(), workspace.summary.teacher
        alone = [ExpandedQuery(topic.query) for topic in topics]
        self._own = self._search(searchers.own_name, searchers.own, alone)
        self._dense = self._search("dense", searchers.dense, alone) if searchers.dense else None
        self._other = (
            self._search(searchers.other_name, searchers.other, alone)
            if searchers.other and searchers.other_name
            else None
        )

    def training_free(self, rankings: Mapping[str, Mapping[str, Ranking]], path: str) -> list[Row]:
        """Return the retriever and the other ways that need no training.

        Args:
            path: of the rankings, for an error.

        Raises:
            DataError: a ranking is missing, or has a passage that is not in the corpus.
        """
        own = self._searchers.own_name
        rows = [Row(own, "retriever", self._own.places, own, search_ms=self._own.ms)]
        for method, by_query in rankings.items():
            if method != own:
                rows.append(Row(method, "training-free", self._as_places(method, by_query, path), own))
        return [replace(row, search_ms=self._known_ms.get(row.name, row.search_ms)) for row in rows]

    def policies(self, rankings: Mapping[str, Mapping[str, Ranking]]) -> list[Row]:
        """Return the ways that were handed in as rankings."""
        own = self._searchers.own_name
        return [
            Row(method, "policy", self._as_places(method, by_query, "--rankings"), own, method=method)
            for method, by_query in rankings.items()
        ]

    def expanded(self, written: Written) -> list[Row]:
        """Return what can be done with the expansions of a method."""
        samples = [written.samples[topic.query_id] for topic in self.topics]
        if written.most_samples == 1:
            return self._greedy(written, [of_query[0] for of_query in samples])
        return self._best(written, samples)

    def second(self) -> list[Row]:
        """Return the second retriever without any expansion."""
        name = self._searchers.other_name
        if self._other is None or name is None or name == self._searchers.own_name:
            return []
        return [Row(f"{name} (second)", "retriever", self._other.places, f"{name} (second)", search_ms=self._other.ms)]

    def judge(self, places: Places) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """Return nDCG@10 by the teacher's gains; 0 where it has none; shape (queries,)."""
        return np.nan_to_num(ndcg(places, self.gains))

    def _greedy(self, written: Written, expansions: Sequence[Expansion]) -> list[Row]:
        method, own = written.method, self._searchers.own_name
        texts = [one.text for one in expansions]
        made = Row(
            method,
            "expansion",
            self._own.places,
            own,
            method=method,
            texts=self._by_query(texts),
            tokens=float(np.mean([one.tokens for one in expansions])),
            write_ms=written.milliseconds,
        )
        alone = self._search(f"{method} alone", self._searchers.own, [ExpandedQuery(text) for text in texts])
        with_query = self._with_query(f"{method} concat", self._searchers.own, texts)
        together = fuse([self._own.places, with_query.places], DEPTH)[0]
        both = self._own.ms + with_query.ms
        rows = [
            replace(made, name=f"{method} alone", way="alone", places=alone.places, search_ms=alone.ms),
            replace(made, name=method, way="concat", places=with_query.places, search_ms=with_query.ms),
            replace(made, name=f"{method} rrf", way="rrf", places=together, search_ms=both),
        ]
        if self._gate == "teacher":
            rows.append(self._gated(replace(made, name=f"{method} gated", way="gated"), texts, self._own, with_query))
        if self._dense:
            rows.append(self._with_dense(replace(made, name=f"{method} + dense", way="dense"), with_query))
        if self._other and self._searchers.other:
            rows += self._on_other(made, texts)
        return rows

    def _on_other(self, made: Row, texts: Sequence[str]) -> list[Row]:
        assert self._other is not None
        assert self._searchers.other is not None
        name, method = self._searchers.other_name, made.method
        found = self._with_query(f"{method} on {name}", self._searchers.other, texts)
        base = f"{name} (second)" if name != self._searchers.own_name else self._searchers.own_name
        rows = [
            replace(made, name=f"{method} on {name}", way="other", places=found.places, base=base, search_ms=found.ms)
        ]
        if self._gate == "teacher" and name != self._teacher:  # who likes no ranking better than its own
            gated = replace(made, name=f"{method} on {name} gated", way="other gated", base=base)
            rows.append(self._gated(gated, texts, self._other, found))
        return rows

    def _best(self, written: Written, samples: Sequence[Sequence[Expansion]]) -> list[Row]:
        """Return the best of several samples, as the teacher sees it; ties go to the first."""
        method, count = written.method, written.most_samples
        found = [
            self._with_query(f"{method} sample {number}", self._searchers.own, [of[number].text for of in samples])
            for number in range(count)
        ]
        chosen = np.argmax([self.judge(one.places) for one in found], axis=0)
        best = _Found(_picked([one.places for one in found], chosen), sum(one.ms for one in found))
        texts = [of[number].text for of, number in zip(samples, chosen, strict=True)]
        spent = written.milliseconds
        made = Row(
            f"{method} best of {count}",
            "expansion",
            best.places,
            self._searchers.own_name,
            method=method,
            way="best",
            texts=self._by_query(texts),
            tokens=float(np.mean([sum(one.tokens for one in of) for of in samples])),
            search_ms=best.ms,
            write_ms=None if spent is None else spent * count,
        )
        rows = [made]
        if self._gate == "teacher":
            rows.append(self._gated(replace(made, name=f"{made.name} gated", way="best gated"), texts, self._own, best))
        if self._dense:
            rows.append(self._with_dense(replace(made, name=f"{made.name} + dense", way="best dense"), best))
        return rows

    def samples(self, written: Written) -> list[Places]:
        """Return what each sample of a method finds beside the query; an oracle chooses among them."""
        of_query = [written.samples[topic.query_id] for topic in self.topics]
        return [
            self._with_query("", self._searchers.own, [of[number].text for of in of_query]).places
            for number in range(written.most_samples)
        ]

    def _gated(self, row: Row, texts: Sequence[str], alone: _Found, expanded: _Found) -> Row:
        """Take the ranking with the expansion only where the teacher likes it better than that of the query alone."""
        helps = passes(alone.places, expanded.places, self.gains)
        kept = [text if passed else "" for text, passed in zip(texts, helps, strict=True)]
        ms = alone.ms + expanded.ms + (self._dense.ms if self._dense else 0.0)
        places = np.where(helps[:, None], expanded.places, alone.places)
        return replace(row, places=places, texts=self._by_query(kept), search_ms=ms)

    def _with_dense(self, row: Row, expanded: _Found) -> Row:
        assert self._dense is not None
        places = fuse([expanded.places, self._dense.places], DEPTH)[0]
        return replace(row, places=places, search_ms=expanded.ms + self._dense.ms)

    def _with_query(self, name: str, searcher: Searcher, texts: Sequence[str]) -> _Found:
        asked = [ExpandedQuery(topic.query, text, self._weight) for topic, text in zip(self.topics, texts, strict=True)]
        return self._search(name, searcher, asked)

    def _search(self, name: str, searcher: Searcher, queries: Sequence[ExpandedQuery]) -> _Found:
        """Search; an empty query, as of an expansion that stands alone, finds nothing."""
        places = np.full((len(queries), DEPTH), -1, dtype=np.int64)
        rows = [row for row, query in enumerate(queries) if query.query.strip()]
        if not rows:
            return _Found(places, 0.0)
        started = time.process_time()
        places[rows] = searcher.search([queries[row] for row in rows], DEPTH)[0]
        ms = (time.process_time() - started) * 1000 / len(rows)
        return _Found(places, self._times.keep(f"{self.topics[0].split} {name}", ms) if name else ms)

    def _by_query(self, texts: Sequence[str]) -> dict[str, str]:
        return {topic.query_id: text for topic, text in zip(self.topics, texts, strict=True)}

    def _as_places(self, method: str, by_query: Mapping[str, Ranking], path: str) -> Places:
        places = np.full((len(self.topics), DEPTH), -1, dtype=np.int64)
        for row, topic in enumerate(self.topics):
            ranking = by_query.get(topic.query_id)
            if ranking is None:
                what = f"{quoted(repr(method))} has no ranking of the query {quoted(repr(topic.query_id))}"
                raise DataError(what, f"Rank all {topic.split} queries", path=path)
            found = ranking.passages[:DEPTH]
            unknown = [key for key in found if key not in self.place_of]
            if unknown:
                what = f"{quoted(repr(method))} found {quoted(repr(unknown[0]))}, which is not in the corpus"
                raise DataError(what, "Pass the rankings of this workspace", path=path)
            places[row, : len(found)] = [self.place_of[key] for key in found]
        return places


def _picked(rankings: Sequence[Places], chosen: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Places:
    stacked = np.stack(rankings)
    picked: Places = stacked[chosen, np.arange(stacked.shape[1])]
    return picked


def oracle(
    name: str, rankings: Sequence[Places], values: Sequence[Mapping[str, float]], topics: Sequence[Topic], base: str
) -> Row:
    """Return the ranking that knows which of several is best for each query: what choosing could bring at most.

    Args:
        values: of each ranking, query id -> nDCG@10, as it is measured; a query that nobody judged has the first.
    """
    table = [[by_query.get(topic.query_id, 0.0) for topic in topics] for by_query in values]
    return Row(name, "oracle", _picked(rankings, np.argmax(table, axis=0)), base)
