"""Measure indexes and their search settings by the user's own qrels: quality lost, milliseconds and bytes.

vectors, qrels -> IndexTrial

python -m milvus_optimization.sweep_indexes --vectors runs/milvus/vectors --output_file runs/milvus/trials.jsonl

FLAT of the same backend is measured first, and all others are held against it. A run that was stopped goes on, and
tries again what has failed.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.backends.loading import check_uri
from milvus_optimization.backends.space import default_grid
from milvus_optimization.indexes.strategy import SearchName, Strategy, run_strategy
from milvus_optimization.indexes.sweep import Subject
from milvus_optimization.indexes.table import format_trials
from milvus_optimization.indexes.workload import Workload
from milvus_optimization.quality.judged import Judged, JudgedArgs
from milvus_optimization.records import BackendName, IndexTrial
from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.processes import peak_bytes
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage, show
from rag_core.corpora.corpus import (
    ARRAYS,
    DOCUMENTS,
    choose_model,
    read_corpus,
    read_vectors,
)
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "milvus_optimization.sweep_indexes"

# They decide which trials there are, and none of what a trial is: those that are measured stay.
_CHOOSE_TRIALS = ("indexes", "search", "evaluations", "screen_fraction", "budget_seconds")


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, JudgedArgs, SeedArgs):
    """Flags of the stage."""

    model: str | None = flag("whose vectors, where the folder has those of several", None, decides=False)
    output_file: Path = flag("the IndexTrial records", decides=False)
    backend: BackendName = flag("faiss in this process, milvus-lite, or a Milvus server", "faiss")
    uri: str | None = flag("--backend server: its address, such as http://localhost:19530", None)
    indexes: list[str] | None = flag("index types, such as HNSW IVF_FLAT (default: all of the backend)", None)
    search: SearchName = flag("go through the grid, or let Optuna propose settings of it", "grid")
    evaluations: int | None = flag("--search optuna: settings it may try (default: half of the grid)", None, least=1)
    k: int = flag("results of a query; nDCG@10 needs 10", 10, least=10, most=100)
    queries: int = flag("queries that are timed, judged ones first; quality is of all judged ones", 1000, least=2)
    screen_fraction: float | None = flag(
        "try all builds on this share of the documents first, and leave the worse half of them out (default: do not)",
        None,
        least=0.01,
        most=0.9,
    )
    budget_seconds: float | None = flag("begin nothing more after so many seconds (default: no end)", None, least=0)


def run(args: Args) -> Path:
    """Measure, print the table, write the trials; return the output."""
    _check(args)
    model = choose_model(args.vectors, args.model)
    arrays = [args.vectors / model / name for name in ARRAYS]
    hashes = check_inputs([*args.texts, *arrays])
    recipe = Recipe(STAGE, decisive(args) | {"model": model}, hashes)
    if not args.overwrite and is_finished(args.output_file, recipe):
        show(format_trials(list(read_records(args.output_file, IndexTrial))))
        return args.output_file
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = read_corpus(args.vectors, args.qrels, bad_rows=bad_rows)
    judged = Judged.of(corpus, args.judgements, args.tune_fraction)
    vectors = read_vectors(args.vectors, model, corpus)
    rows, dimensions = vectors.documents.shape
    if args.k > rows:
        raise DataError(
            f"has {rows} documents, fewer than --k {args.k}", "Pass more documents", path=args.vectors / DOCUMENTS
        )
    workload = Workload.of(judged, vectors, timed=args.queries, k=args.k, seed=args.seed)
    indexes = None if args.indexes is None else ["FLAT", *(name for name in args.indexes if name != "FLAT")]
    settings = default_grid(args.backend, rows, dimensions, args.k, indexes)
    subject = Subject(
        args.backend, model, [hashes[str(array)] for array in arrays], rows, dimensions, args.k, len(workload.timed)
    )
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite, ignoring=_CHOOSE_TRIALS) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        strategy = Strategy(
            args.search, args.evaluations, args.screen_fraction, args.budget_seconds, args.uri, work.directory
        )
        trials = run_strategy(strategy, settings, vectors.documents, workload, subject)
        write_records(args.output_file, trials)
        write_manifest(
            args.output_file,
            recipe,
            rows=len(trials),
            statuses=dict(Counter(trial.status for trial in trials)),
            **judged.facts(args.judgements),
            cpu_seconds=round(time.process_time(), 1),
            peak_rss=peak_bytes(),
            load=os.getloadavg(),
            skipped={"bad_rows": len(bad_rows)},
        )
        work.remove()
    show(format_trials(trials))
    return args.output_file


def _check(args: Args) -> None:
    if args.backend == "server":
        check_uri(args.uri)
    if args.uri is not None and args.backend != "server":
        raise UsageError(f"--uri is of a server, and --backend is {args.backend}", "Pass --backend server")
    if args.evaluations is not None and args.search != "optuna":
        raise UsageError("--evaluations is for --search optuna", "Pass both, or neither")
    if args.screen_fraction is not None and args.backend == "lite":
        raise UsageError(
            "--screen_fraction weighs recall against time, and milvus-lite's time means nothing", "Leave it out"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
