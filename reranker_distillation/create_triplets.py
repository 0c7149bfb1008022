"""Turn a teacher's scores into triplets with score margins; labels are not used.

ScoredPair -> Triplet

python -m reranker_distillation.create_triplets --input_files data/train_logits.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import random
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rag_core.errors import DataError, UsageError
from rag_core.jsonl import output_path, read_groups, write_records
from rag_core.manifest import Recipe, check_inputs, is_made, read_manifest, write_manifest
from rag_core.records import ScoredPair
from rag_core.stage import StageArgs, flag, run_stage
from rag_core.unfinished import UnfinishedWork
from reranker_distillation.triplets import Sampling, make_triplets

logger = logging.getLogger(__name__)


def _number_or_all(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor 'all'")
    return int(text)


@dataclasses.dataclass(kw_only=True)
class Args(StageArgs):
    """Flags of the stage."""

    input_files: list[Path] = flag("files of ScoredPair records, made by generate_logits")
    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_triplets")
    output_dir: Path | None = flag("folder of the output (default: beside the input)", None)
    top_k: int = flag("how many of the teacher's best candidates become positives", 8)
    num_negatives: str = flag(
        "negatives of each positive; 'all' pairs every two candidates, n(n-1)/2 triplets", 4, type=_number_or_all
    )
    sampling: Sampling = flag("negatives are the next in the teacher's ranking, or random ones below", "next")
    min_margin: float = flag("leave out triplets with a margin not above this (in the score's unit)", 0.0)


def run(args: Args) -> list[Path]:
    """Make the triplets of each input file; return the outputs."""
    if args.top_k < 1:
        raise UsageError(f"--top_k is {args.top_k}", "Pass at least 1")
    if args.min_margin < 0:
        raise UsageError(f"--min_margin is {args.min_margin}", "Pass 0 or more: margins are above 0 by definition")
    hashes = check_inputs(args.input_files)
    outputs = []
    for source in args.input_files:
        output = output_path(source, args.output_suffix, args.output_dir)
        recipe = Recipe(
            stage="reranker_distillation.create_triplets",
            flags={
                name: getattr(args, name)
                for name in ("top_k", "num_negatives", "sampling", "min_margin", "seed", "skip_bad_rows")
            },
            inputs={str(source): hashes[str(source)]},
        )
        outputs.append(output)
        if not args.overwrite and is_made(output, recipe):
            logger.info("%s is finished already", output)
            continue
        _make(args, source, output, recipe)
    return outputs


def _make(args: Args, source: Path, output: Path, recipe: Recipe) -> None:
    bad_rows: list[DataError] = []
    groups = read_groups(source, ScoredPair, skipped=bad_rows if args.skip_bad_rows else None)
    generator = random.Random(args.seed)
    made = [
        list(
            make_triplets(
                group,
                top_k=args.top_k,
                num_negatives=None if args.num_negatives == "all" else int(args.num_negatives),
                sampling=args.sampling,
                min_margin=args.min_margin,
                generator=generator,
            )
        )
        for group in groups
    ]
    empty = sum(not triplets for triplets in made)
    if empty == len(made):
        raise DataError(
            "gives no triplet: no query has two candidates that the teacher scores apart",
            "Check the scores, or lower --min_margin",
            path=source,
        )
    scored_by = read_manifest(source) or {}
    with UnfinishedWork(output, recipe, overwrite=args.overwrite) as work:
        rows = write_records(output, chain.from_iterable(made))
        write_manifest(
            output,
            recipe,
            rows=rows,
            teacher=scored_by.get("recipe", {}).get("model"),
            score_unit=scored_by.get("score_unit"),
            skipped={"bad_rows": len(bad_rows), "queries_without_triplets": empty},
        )
        work.remove()
    logger.info("%s: %d triplets of %d queries (%d queries gave none)", output, rows, len(groups), empty)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
