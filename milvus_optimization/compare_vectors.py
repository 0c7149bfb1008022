"""Measure what fewer bits and fewer dimensions lose, with exact search, so that no index has a part in it.

vectors, qrels -> VectorVariant

python -m milvus_optimization.compare_vectors --vectors runs/milvus/vectors --output_file runs/milvus/variants.jsonl
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.corpus.corpus import (
    ARRAYS,
    DOCUMENTS,
    QRELS,
    QUERIES,
    Corpus,
    check_judged,
    choose_models,
    judge_of,
    judged_queries,
    read_corpus,
    read_vectors,
)
from milvus_optimization.quality.halves import FEW_TO_TUNE
from milvus_optimization.quality.measures import FEWEST_TO_COMPARE, Halves
from milvus_optimization.records import VectorVariant
from milvus_optimization.vectors.losses import Baseline, format_variants
from milvus_optimization.vectors.variants import check_variant, default_variants
from rag_core.base.errors import DataError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "milvus_optimization.compare_vectors"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, BadRowsArgs, SeedArgs):
    """Flags of the stage."""

    vectors: Path = flag("folder that embed_corpus made", decides=False)
    model: list[str] | None = flag("whose vectors, one or several of the folder (default: all)", None, decides=False)
    qrels: Path | None = flag("judgements to use instead of the folder's, such as a teacher's", None, decides=False)
    output_file: Path = flag("the VectorVariant records", decides=False)
    variants: list[str] | None = flag(
        "float32 (always there), float16, int8, sq8, sq4, binary, first<n> (the first n dimensions) and pca<n> "
        "(default: all but float16, and half and a third of the dimensions)",
        None,
    )
    rescore: list[int] = flag(
        "candidates per result that the full vectors order anew; 0 for none", [0, 2, 4, 10], least=0, most=100
    )
    tune_fraction: float = flag(
        "share of the judged queries to choose by; figures are of the others", 0.5, least=0, most=1
    )


def run(args: Args) -> Path:
    """Measure each variant of each model, print the table, write the records; return the output."""
    models = choose_models(args.vectors, args.model)
    judged = args.qrels or args.vectors / QRELS
    files = [args.vectors / DOCUMENTS, args.vectors / QUERIES]
    files += [args.vectors / model / name for model in models for name in ARRAYS]
    files += [judged] if args.qrels or judged.exists() else []
    recipe = Recipe(STAGE, decisive(args) | {"model": models}, check_inputs(files))
    if not args.overwrite and is_finished(args.output_file, recipe):
        show(format_variants(list(read_records(args.output_file, VectorVariant))))
        return args.output_file
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = read_corpus(args.vectors, args.qrels, bad_rows=bad_rows)
    halves = _halves(corpus, args)
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        found = _measure(corpus, halves, models, args)
        rows = write_records(args.output_file, found)
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            judged_by=judge_of(judged),
            tune_queries=len(halves.tune),
            report_queries=len(halves.report),
            skipped={"bad_rows": len(bad_rows)},
        )
        work.remove()
    show(format_variants(found))
    return args.output_file


def _halves(corpus: Corpus, args: Args) -> Halves:
    """Split the judged queries.

    Raises:
        DataError: there are none, or too few to report anything.
    """
    check_judged(corpus, args.vectors)
    ids = list(corpus.queries)
    halves = Halves.of([ids[place] for place in judged_queries(corpus.qrels, ids)], args.tune_fraction)
    if len(halves.report) < FEWEST_TO_COMPARE or not halves.tune:
        raise DataError(
            f"has {len(halves.tune)} judged queries to choose by and {len(halves.report)} to report, "
            f"and at least 1 and {FEWEST_TO_COMPARE} are needed",
            "Judge more queries, or pass another --tune_fraction",
            path=args.qrels or args.vectors / QRELS,
        )
    if len(halves.tune) < FEW_TO_TUNE:
        few = "WARNING: %d judged queries to choose by, fewer than %d: what is chosen by them may be chance"
        logger.warning(few, len(halves.tune), FEW_TO_TUNE)
    return halves


def _measure(corpus: Corpus, halves: Halves, models: Sequence[str], args: Args) -> list[VectorVariant]:
    from tqdm import tqdm

    every = [read_vectors(args.vectors, model, corpus) for model in models]
    todo = []
    for vectors in every:
        dimensions = vectors.documents.shape[1]
        names = dict.fromkeys(["float32", *(args.variants or default_variants(dimensions))])
        for name in names:
            check_variant(name, dimensions)
        todo.append(list(names))
    found: list[VectorVariant] = []
    with tqdm(total=sum(map(len, todo)), unit="variant", desc="compare vectors", disable=None) as bar:
        for vectors, chosen in zip(every, todo, strict=True):
            baseline = Baseline.of(corpus, vectors, halves)
            for name in chosen:
                found += baseline.measure(name, args.rescore, args.seed)
                bar.update()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
