"""Turn a teacher's scores into soft labels: one row per query, with all its candidates. Labels are not used.

ScoredPair -> SoftLabels

python -m embedding_distillation.generate_scores --input_files data/train_logits.jsonl
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import flag
from rag_core.base.outside_text import quoted
from rag_core.base.records import ScoredPair
from rag_core.base.stage import run_stage
from rag_core.distillation.derive import Derived, DerivedFilesArgs, derive_files
from rag_core.distillation.soft_labels import make_soft_labels


@dataclasses.dataclass(kw_only=True)
class Args(DerivedFilesArgs):
    """Flags of the stage."""

    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_scores", decides=False)
    max_passages: int | None = flag(
        "candidates kept per query: half are the teacher's best, half are spread over the rest of its ranking "
        "(default: all)",
        None,
        least=1,
    )


def run(args: Args) -> list[Path]:
    """Make the soft labels of each input file; return the outputs."""
    if args.max_passages is not None and args.max_passages < 2:
        raise UsageError(f"--max_passages is {args.max_passages}", "Pass at least 2: one candidate has no distribution")

    def derive(groups: list[list[ScoredPair]], source: Path) -> Derived:
        usable = [group for group in groups if len(group) > 1]
        single = len(groups) - len(usable)
        if single and not (args.skip_bad_rows and usable):
            first = next(group[0].query_id for group in groups if len(group) == 1)
            remedy = ", or pass --skip_bad_rows to leave such queries out" if usable else ""
            raise DataError(
                f"{single} queries have one candidate, which has nothing to be compared with "
                f"(query_id {quoted(repr(first))})",
                f"Give every query two or more{remedy}",
                path=source,
            )
        return Derived(
            (make_soft_labels(group, args.max_passages) for group in usable),
            {"queries_with_one_candidate": single},
            f"{len(usable)} queries",
        )

    return derive_files(args, derive, stage="embedding_distillation.generate_scores")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
