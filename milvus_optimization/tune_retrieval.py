"""Choose how to rank: dense search, BM25 or both, fused in every way of a grid, and a reranker over the best of them.

vectors, qrels -> RetrievalTrial

python -m milvus_optimization.tune_retrieval --vectors runs/milvus/vectors --output_file runs/milvus/retrieval.jsonl

Search by vectors is exact here: what an index loses is measured by sweep_indexes. The table shows what is best on the
tune half of the judged queries, with its figures on the other half.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.quality.judged import Judged, JudgedArgs
from milvus_optimization.records import RetrievalTrial
from milvus_optimization.retrieval.grid import NORMALISATIONS, Grid
from milvus_optimization.retrieval.table import format_trials
from milvus_optimization.retrieval.tuning import Tuning
from rag_core.base.flags import decisive, flag, flags_of
from rag_core.base.stage import OverwriteArgs, run_stage, show
from rag_core.corpora.corpus import (
    ARRAYS,
    Vectors,
    choose_models,
    read_corpus,
    read_vectors,
)
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.kept_times import KeptTimes
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished
from rag_core.retrieval.analyser import AnalyserArgs, Stemmer, StopWords
from rag_core.scoring.engine_args import EngineArgs, check_engine
from rag_core.scoring.reranking import Reranker, check_no_reranker_flags, settle_reranker

STAGE = "milvus_optimization.tune_retrieval"


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, JudgedArgs, AnalyserArgs, EngineArgs):
    """Flags of the stage."""

    output_file: Path = flag("the RetrievalTrial records", decides=False)
    model: list[str] | None = flag("whose vectors are used, one or several of the folder (default: all)", None)
    fusion: list[str] = flag("how both rankings are fused", ["rrf", "weighted"], choices=("rrf", "weighted"))
    rrf_k: list[float] = flag("RRF: its constant", [1, 5, 10, 20, 60], least=1, most=16_383)
    weights: list[float] = flag(
        "weighted: of dense; BM25 has the rest", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9], least=0, most=1
    )
    raw_weights: list[float] = flag(
        "weighted without normalisation: of dense, whose scores are some thirty times smaller than BM25's",
        [0.9, 0.95, 0.97, 0.98, 0.99],
        least=0,
        most=1,
    )
    normalisation: list[str] = flag(
        "weighted: of scores; Milvus has arctan and none, minmax is for an application that fuses two searches itself",
        list(NORMALISATIONS),
        choices=NORMALISATIONS,
    )
    depth: list[int] = flag("documents of each ranking that are fused", [10, 20, 50, 100], least=1, most=16_384)
    bm25_k1: list[float] = flag("BM25: how much a word counts that comes again", [0.9, 1.2, 1.6], least=0)
    bm25_b: list[float] = flag(
        "BM25: how much the length of a document is held against it", [0.4, 0.75], least=0, most=1
    )
    bm25_stemmer: Stemmer | None = flag(
        "BM25: reduce words to their stems by Snowball's rules for this language", None, metavar="LANGUAGE"
    )
    bm25_stop_words: StopWords | None = flag(
        "BM25: leave out the stop words of this language", None, metavar="LANGUAGE"
    )
    reranker: str | None = flag(
        "cross-encoder or LLM reranker, a folder or a hub's name, over the best of each family", None, decides=False
    )
    reranker_depth: list[int] = flag("reranker: how many of the first documents it orders", [10, 20, 50], least=1)
    score_store: Path | None = flag("reranker: folder that keeps its scores for other runs", None, decides=False)
    seed: int = flag("seed of the intervals in the table", 42, decides=False, least=0, most=2**32 - 1)

    @property
    def grid(self) -> Grid:
        """The ways to rank that the flags span."""
        return Grid(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Grid)})


def run(args: Args) -> Path:
    """Measure every way to rank, and print the best; return the output."""
    if not args.reranker:
        check_no_reranker_flags(args)
    check_engine(args)
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = read_corpus(args.vectors, args.qrels, bad_rows=bad_rows)
    vectors = [read_vectors(args.vectors, name, corpus) for name in choose_models(args.vectors, args.model)]
    judged = Judged.of(corpus, args.judgements, args.tune_fraction)
    reranker = settle_reranker(args.reranker, args) if args.reranker else None
    recipe = _recipe(args, vectors, reranker)
    if args.overwrite or not is_finished(args.output_file, recipe):
        with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
            if args.overwrite or not is_finished(args.output_file, recipe):  # by another run, in the meantime
                count = write_records(args.output_file, _measure(args, judged, vectors, reranker, work.directory))
                write_manifest(
                    args.output_file,
                    recipe,
                    rows=count,
                    **judged.facts(args.judgements),
                    skipped={"bad_rows": len(bad_rows)},
                )
                work.remove()
    show(format_trials(list(read_records(args.output_file, RetrievalTrial)), judged.halves, args.seed))
    return args.output_file


def _measure(
    args: Args, judged: Judged, vectors: Sequence[Vectors], reranker: Reranker | None, folder: Path
) -> list[RetrievalTrial]:
    tuning = Tuning(judged, args.grid, args.analyser, KeptTimes(folder))
    trials = tuning.fusions(vectors)
    if reranker:
        depths = list(dict.fromkeys(args.reranker_depth))
        trials += tuning.reranked(trials, reranker, depths, folder, args.score_store)
    return trials


def _recipe(args: Args, vectors: Sequence[Vectors], reranker: Reranker | None) -> Recipe:
    """Return what decides the output; flags of the reranker stand in it where there is one."""
    arrays = [args.vectors / one.model / name for one in vectors for name in ARRAYS]
    flags = decisive(args) | {"model": [one.model for one in vectors]} | args.analyser.recipe
    for field in flags_of(EngineArgs):
        flags.pop(field.name, None)
    scored_by, model = reranker.recipe if reranker else ({}, {})
    return Recipe(STAGE, flags | scored_by, check_inputs([*args.texts, *arrays]), model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
