"""Label-free relevance: the first passages by a teacher that ranks better than the retriever."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from query_expansion_rl.records import Judgement
from query_expansion_rl.retrieval.searching import ExpandedQuery, Found, Searcher
from rag_core.base.errors import DataError, PipelineError
from rag_core.base.records import Qrels
from rag_core.files.bad_rows import NoBadRows
from rag_core.metrics.ranking import METRICS, Places, measure_places
from rag_core.retrieval.fusion import take_turns
from rag_core.scoring.engine_args import EngineArgs, engine_options
from rag_core.scoring.reranking import Candidates, SettledModel

if TYPE_CHECKING:
    from rag_core.evaluation.verdict import Comparison, Role

HYBRID = "hybrid"
# The gains are graded by rank. Of 12 RM3 variants for 748 claims of scifact, the sign of a change by the first 5 of the
# hybrid is right in 68 of 100 (first 3: 66, first 10: 65), and in 59 where all have the same gain (53, 51). Texts of
# SmolLM2-135M, 8 for each of 120 claims, are told apart best by the first 10: the best one wins 16 times and loses
# once, and the sign is right in 72 of 100; by the first 5 it is 15 to 4, and 69.

logger = logging.getLogger(__name__)


def top_gains(places: Places, top: int) -> list[dict[int, float]]:
    """Return place -> gain of the first `top` passages of each ranking: `top` for the first, down to 1.

    Args:
        places: best first, -1 where nothing was found; shape (queries, results).
    """
    return [
        {int(place): float(top - rank) for rank, place in enumerate(ranking[:top]) if place >= 0} for ranking in places
    ]


def hybrid_gains(hybrid: Searcher, queries: Sequence[str], top: int) -> list[dict[int, float]]:
    """Return the hybrid's gains of queries, new ones, too: what the workspace has of its own where it is the teacher.

    Args:
        hybrid: `workspace.searcher("hybrid", encode)`.
        top: `workspace.summary.judge_top`.
    """
    return top_gains(hybrid.search([ExpandedQuery(query) for query in queries], top)[0], top)


def judgements(
    query_ids: Sequence[str], gains: Sequence[Mapping[int, float]], document_ids: Sequence[str], teacher: str
) -> list[Judgement]:
    """Return the gains as records, best first."""
    return [
        Judgement(query_id, document_ids[place], gain, teacher)
        for query_id, mine in zip(query_ids, gains, strict=True)
        for place, gain in mine.items()
    ]


def as_qrels(
    query_ids: Sequence[str], gains: Sequence[Mapping[int, float]], document_ids: Sequence[str]
) -> dict[str, dict[str, int]]:
    """Return the gains as judgements; queries without any are left out."""
    return {
        query_id: {document_ids[place]: int(gain) for place, gain in mine.items()}
        for query_id, mine in zip(query_ids, gains, strict=True)
        if mine
    }


def pool(rankings: Sequence[Places], depth: int) -> list[list[int]]:
    """Return the places of each query that any ranking has among its first `depth`, in turns, each once."""
    rows = zip(*(ranking[:, :depth] for ranking in rankings), strict=True)
    return [take_turns([ranking[ranking >= 0].tolist() for ranking in row], depth * len(rankings)) for row in rows]


@dataclass(frozen=True)
class Teacher(SettledModel):
    """A model that judges: an embedder, a cross-encoder or an LLM reranker."""

    def rank(
        self,
        queries: Mapping[str, str],
        candidates: Sequence[Sequence[int]],
        texts: Sequence[str],
        folder: Path,
        store: Path | None,
    ) -> Found:
        """Return the candidates of each query by the model's scores, best first, ties as they came.

        Args:
            queries: query id -> query.
            candidates: places in `texts`, of each query.
            folder: of the unfinished work, where scores are kept until its end.
            store: where they are kept for good.

        Raises:
            DataError: there are no candidates.
            PipelineError: as the engine raises, or a query leaves no room for a passage.
        """
        from rag_core.scoring.samples import SampleFile
        from rag_core.scoring.scores import compute_scores, scored_samples

        if not any(candidates):
            raise DataError("BM25 finds nothing that a teacher could judge", "Pass --dense_model, or a --bm25_stemmer")
        path = folder / "pool.jsonl"
        Candidates(list(queries), list(queries.values()), texts, candidates).write(path)
        source = SampleFile(path, NoBadRows())
        work = self.load(source, folder / "teacher", store)
        scores = compute_scores(source, work, pairs=source.pairs)
        if work.model.truncated:
            logger.info("%d texts were cut to fit --max_length %d", work.model.truncated, self.options.max_length)
        by_text = {
            sample.query_id: {pair.passage: pair.score for pair in pairs}
            for sample, pairs in scored_samples(source, scores)
        }
        width = max(map(len, candidates))
        places = np.full((len(queries), width), -1, dtype=np.int64)
        values = np.full((len(queries), width), -np.inf, dtype=np.float32)
        for row, (query_id, mine) in enumerate(zip(queries, candidates, strict=True)):
            found = np.array([by_text[query_id][texts[place]] for place in mine], dtype=np.float32)
            order = np.argsort(-found, kind="stable")
            places[row, : len(mine)], values[row, : len(mine)] = np.array(mine, dtype=np.int64)[order], found[order]
        return places, values


def settle_teacher(name: str, args: EngineArgs, files: Sequence[Path]) -> Teacher:
    """Find out what a model is, and choose its engine and precision.

    Args:
        files: of the corpus; they may name an instruction.

    Raises:
        EngineError: the engine cannot run it.
    """
    from rag_core.engines.identity import describe_model
    from rag_core.scoring.settings import settle

    options = engine_options(args, describe_model(name, args.prompt_names()))
    engine, options = settle("auto" if args.engine == "ray" else args.engine, options, list(files))
    return Teacher(name, engine, options)


def compare(
    qrels: Qrels,
    rows: Mapping[str, int],
    document_ids: Sequence[str],
    *,
    teacher: Places,
    retriever: Places,
    seed: int,
) -> Comparison:
    """Compare the rankings of a teacher and of the retriever by MAP, as `check_teacher` does.

    Args:
        qrels: of at least 2 queries.
        rows: query id -> its row in the rankings.
    """
    from rag_core.evaluation.verdict import compare_rankers

    rankings: dict[Role, Places] = {"student": retriever, "teacher": teacher}
    ids = [query_id for query_id in rows if query_id in qrels]
    places = [rows[query_id] for query_id in ids]
    measured = {
        role: measure_places(qrels, ids, document_ids, ranking[places], METRICS) for role, ranking in rankings.items()
    }
    return compare_rankers(
        {
            role: {metric: np.array([of[metric][query_id] for query_id in ids]) for metric in METRICS}
            for role, of in measured.items()
        },
        seed,
    )


def conclude(comparison: Comparison, queries: int, teacher: str, retriever: str, *, force: bool) -> None:
    """Tell whether the teacher ranks better than the retriever on judged queries.

    Raises:
        PipelineError: it ranks worse, and not `force`.
    """
    verdict, interval = comparison.verdict, comparison.interval
    if verdict == "go":
        logger.info("go: %s ranks better than %s (%s, %d queries)", teacher, retriever, interval, queries)
    elif verdict == "unclear":
        logger.warning(
            "WARNING: unclear: %d queries do not tell whether %s ranks better than %s (%s). What it wants may be "
            "no better than what is there: judge more queries, or pass another --teacher",
            queries,
            teacher,
            retriever,
            interval,
        )
    elif not force:
        raise PipelineError(
            f"no: the teacher {teacher} ranks worse than {retriever} ({interval}, {queries} train and dev queries)",
            "Pass another --teacher, or --force to go on nevertheless",
        )
    else:
        logger.warning("WARNING: no: %s ranks worse than %s (%s); going on, as forced", teacher, retriever, interval)
