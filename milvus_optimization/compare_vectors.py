"""Measure what fewer bits and fewer dimensions lose, with exact search, so that no index has a part in it.

vectors, qrels -> VectorVariant

python -m milvus_optimization.compare_vectors --vectors runs/milvus/vectors --output_file runs/milvus/variants.jsonl
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.quality.judged import Judged, JudgedArgs
from milvus_optimization.records import VectorVariant
from milvus_optimization.vectors.losses import Baseline, format_variants
from milvus_optimization.vectors.variants import check_variant, default_variants
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage, show
from rag_core.corpora.corpus import (
    ARRAYS,
    choose_models,
    read_corpus,
    read_vectors,
)
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import read_records, write_records
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "milvus_optimization.compare_vectors"


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, JudgedArgs, SeedArgs):
    """Flags of the stage."""

    model: list[str] | None = flag("whose vectors, one or several of the folder (default: all)", None, decides=False)
    output_file: Path = flag("the VectorVariant records", decides=False)
    variants: list[str] | None = flag(
        "float32 (always there), float16, int8, sq8, sq4, binary, first<n> (the first n dimensions) and pca<n> "
        "(default: all but float16, and half and a third of the dimensions)",
        None,
    )
    rescore: list[int] = flag(
        "candidates per result that the full vectors order anew; 0 for none", [0, 2, 4, 10], least=0, most=100
    )


def run(args: Args) -> Path:
    """Measure each variant of each model, print the table, write the records; return the output."""
    models = choose_models(args.vectors, args.model)
    arrays = [args.vectors / model / name for model in models for name in ARRAYS]
    recipe = Recipe(STAGE, decisive(args) | {"model": models}, check_inputs([*args.texts, *arrays]))
    if not args.overwrite and is_finished(args.output_file, recipe):
        show(format_variants(list(read_records(args.output_file, VectorVariant))))
        return args.output_file
    bad_rows = BadRows(skip=args.skip_bad_rows)
    corpus = read_corpus(args.vectors, args.qrels, bad_rows=bad_rows)
    judged = Judged.of(corpus, args.judgements, args.tune_fraction)
    with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_file, recipe):  # by another run, in the meantime
            return args.output_file
        found = _measure(judged, models, args)
        rows = write_records(args.output_file, found)
        write_manifest(
            args.output_file,
            recipe,
            rows=rows,
            **judged.facts(args.judgements),
            skipped={"bad_rows": len(bad_rows)},
        )
        work.remove()
    show(format_variants(found))
    return args.output_file


def _measure(judged: Judged, models: Sequence[str], args: Args) -> list[VectorVariant]:
    from tqdm import tqdm

    every = [read_vectors(args.vectors, model, judged.corpus) for model in models]
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
            baseline = Baseline.of(judged, vectors)
            for name in chosen:
                found += baseline.measure(name, args.rescore, args.seed)
                bar.update()
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
