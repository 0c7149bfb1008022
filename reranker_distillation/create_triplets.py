"""Turn a teacher's scores into triplets with score margins. Labels are not used.

ScoredPair -> Triplet

python -m reranker_distillation.create_triplets --input_files data/train_logits.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.records import ScoredPair
from rag_core.base.stage import SeedArgs, run_stage
from rag_core.distillation.derive import Derived, DerivedFilesArgs, derive_files
from reranker_distillation.triplets import Sampling, make_triplets


def _number_or_all(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor 'all'")
    return int(text)


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, DerivedFilesArgs):
    """Flags of the stage."""

    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_triplets", decides=False)
    top_k: int = flag("how many of the teacher's best candidates become positives", 8)
    num_negatives: str = flag(
        "negatives of each positive; 'all' pairs every two candidates, n(n-1)/2 triplets", 4, type=_number_or_all
    )
    sampling: Sampling = flag(
        "negatives are the next ones in the teacher's ranking, random ones below, or stratified: one from each part of "
        "the ranking below, near to far",
        "next",
    )
    min_margin: float = flag("leave out triplets with a margin not above this (in the score's unit)", 0.0)


def run(args: Args) -> list[Path]:
    """Make the triplets of each input file; return the outputs."""
    if args.top_k < 1:
        raise UsageError(f"--top_k is {args.top_k}", "Pass at least 1")
    if args.min_margin < 0:
        raise UsageError(f"--min_margin is {args.min_margin}", "Pass 0 or more: margins are above 0 by definition")

    def derive(groups: list[list[ScoredPair]], source: Path) -> Derived:
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
        return Derived(
            chain.from_iterable(made),
            {"queries_without_triplets": empty},
            f"{sum(map(len, made))} triplets of {len(groups)} queries ({empty} queries gave none)",
        )

    return derive_files(args, derive, stage="reranker_distillation.create_triplets")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
