"""A reranker over what several rankings find first: each pair is scored once, kept, and timed on a few queries."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_core.base.errors import EngineError, UsageError
from rag_core.base.flags import default_of, flags_of
from rag_core.base.records import RankingSample
from rag_core.engines.protocols import PairScorer
from rag_core.files.bad_rows import NoBadRows
from rag_core.files.jsonl import write_records
from rag_core.files.kept_times import KeptTimes
from rag_core.metrics.ranking import Places
from rag_core.scoring.engine_args import EngineArgs, engine_options

if TYPE_CHECKING:
    from rag_core.engines.options import EngineName, EngineOptions
    from rag_core.scoring.chunks import Work
    from rag_core.scoring.samples import SampleFile
    from rag_core.scoring.scores import Scores

logger = logging.getLogger(__name__)

_TIMED_QUERIES = 10  # besides one to warm up


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What is to be reranked: for each query the documents that any of the rankings has among its first.

    Attributes:
        query_ids, queries: of the rows.
        texts: of all documents.
        rows: the places of documents of each query, in their order.
    """

    query_ids: Sequence[str]
    queries: Sequence[str]
    texts: Sequence[str]
    rows: Sequence[Sequence[int]]

    @classmethod
    def of(
        cls, query_ids: Sequence[str], queries: Sequence[str], texts: Sequence[str], rankings: Sequence[Places]
    ) -> Candidates:
        """Gather the documents of several rankings of the queries; shape (queries, results) each."""
        together = np.concatenate(rankings, axis=1)
        return cls(query_ids, queries, texts, [np.unique(row[row >= 0]).tolist() for row in together])

    def write(self, path: Path) -> None:
        """Write the queries that have any as samples without labels."""
        write_records(
            path,
            (
                RankingSample(query, candidates=[self.texts[place] for place in row], query_id=query_id)
                for query, query_id, row in zip(self.queries, self.query_ids, self.rows, strict=True)
                if row
            ),
        )


@dataclasses.dataclass(frozen=True)
class SettledModel:
    """A model that scores samples, settled and not loaded yet."""

    name: str
    engine: EngineName
    options: EngineOptions

    @property
    def recipe(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What of the flags and of the model decides a score."""
        from rag_core.scoring.settings import what_scores

        return what_scores(self.engine, self.options)

    def load(self, source: SampleFile, folder: Path, store: Path | None) -> Work:
        """Load it for the samples of a file.

        Args:
            folder: where scores are kept until the work is done.
            store: where they are kept for good.

        Raises:
            PipelineError: as the engine raises, or a query leaves no room for a passage.
        """
        from rag_core.scoring.chunks import Work
        from rag_core.scoring.room import check_room
        from rag_core.scoring.settings import CHUNK_ROWS, describe_store, load, scope_of

        check_room([source], self.options)
        scope = scope_of(self.engine, self.options)
        folders = [*([store / scope] if store else []), folder]
        for one in folders:
            one.mkdir(parents=True, exist_ok=True)
        if store:
            describe_store(folders[0], self.engine, self.options)
        return Work(load(self.engine, self.options, source.canary_pairs), scope, folders, CHUNK_ROWS[self.engine])


@dataclasses.dataclass(frozen=True)
class Reranker(SettledModel):
    """A model that reads query and passage together."""

    def score(
        self, candidates: Candidates, folder: Path, store: Path | None, depths: Sequence[int], times: KeptTimes
    ) -> tuple[Mapping[tuple[int, int], float], dict[int, float]]:
        """Return the score of each (row of a query, place of a document), and depth -> CPU ms of a query.

        Args:
            folder: of the unfinished work, where scores are kept until its end.
            store: where they are kept for good.
            times: of an earlier run, which are not taken again; what is measured here goes there, too.

        Raises:
            PipelineError: as the engine raises, or a query leaves no room for a passage.
        """
        from rag_core.scoring.samples import SampleFile
        from rag_core.scoring.scores import compute_scores

        path = folder / "candidates.jsonl"
        candidates.write(path)
        source = SampleFile(path, NoBadRows())
        work = self.load(source, folder / "pairs", store)
        model = work.model
        assert isinstance(model, PairScorer)  # `settle` sees to it
        milliseconds = {depth: _time(model, candidates, depth, times) for depth in depths}
        scores = compute_scores(source, work, pairs=source.pairs)
        if model.truncated:
            logger.info("%d passages were cut to fit --max_length %d", model.truncated, self.options.max_length)
        return _by_place(candidates, scores), milliseconds


def check_no_reranker_flags(args: EngineArgs, others: Collection[str] = ()) -> None:
    """Check that flags of a reranker are not given where there is none.

    Args:
        others: flags that something else takes, too.

    Raises:
        UsageError: one is.
    """
    names = {"reranker_depth", "score_store", *(field.name for field in flags_of(EngineArgs))} - {"log_level", *others}
    for field in flags_of(type(args)):
        if field.name in names and getattr(args, field.name) != default_of(field):
            raise UsageError(f"--{field.name} is for a reranker", "Pass --reranker as well, or leave it out")


def settle_reranker(name: str, args: EngineArgs) -> Reranker:
    """Find out what a model is, and choose its engine and precision.

    Raises:
        EngineError: it is no reranker, or the engine cannot run it.
    """
    from rag_core.engines.identity import describe_model
    from rag_core.scoring.settings import settle

    options = engine_options(args, describe_model(name, args.prompt_names()))
    if options.model.kind == "bi-encoder":
        raise EngineError(f"{name} is an embedder ({options.model.why})", "Pass a cross-encoder or an LLM reranker")
    engine, options = settle("auto" if args.engine == "ray" else args.engine, options, [])
    return Reranker(name, engine, options)


def reranked(places: Places, depth: int, scores: Mapping[tuple[int, int], float]) -> Places:
    """Return the rankings with the first `depth` of each in the order of the reranker; equal ones stay as they were.

    Args:
        places: best first, -1 after the last; shape (queries, results).
    """
    ordered = places.copy()
    for row, ranking in enumerate(places[:, :depth]):
        found = ranking[ranking >= 0]
        order = np.argsort([-scores[row, int(place)] for place in found], kind="stable")
        ordered[row, : len(found)] = found[order]
    return ordered


def _by_place(candidates: Candidates, scores: Scores) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for row, (query, places) in enumerate(zip(candidates.queries, candidates.rows, strict=True)):
        if places:
            values = scores.of([(query, candidates.texts[place]) for place in places])
            found |= {(row, place): float(value) for place, value in zip(places, values, strict=True)}
    return found


def _time(model: PairScorer, candidates: Candidates, depth: int, times: KeptTimes) -> float:
    """Return the mean CPU ms of a query, each scored by itself, as a search does it."""
    known = times.get(f"rerank {depth}")
    if known is not None:
        return known
    truncated = model.truncated
    spent = []
    for row in [row for row, places in enumerate(candidates.rows) if places][: 1 + _TIMED_QUERIES]:
        pairs = [(candidates.queries[row], candidates.texts[place]) for place in candidates.rows[row][:depth]]
        started = time.process_time()
        model.score(pairs)
        spent.append((time.process_time() - started) * 1000)
    model.truncated = truncated  # the run itself counts these pairs
    return times.keep(f"rerank {depth}", float(np.mean(spent[1:] or spent)))
