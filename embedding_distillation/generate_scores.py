"""Turn a teacher's scores into soft labels: one row a query, with all its candidates; labels are not used.

ScoredPair -> SoftLabels

python -m embedding_distillation.generate_scores --input_files data/train_logits.jsonl
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from embedding_distillation.soft_labels import make_soft_labels
from rag_core.errors import DataError, UsageError
from rag_core.jsonl import output_path, read_groups, write_records
from rag_core.manifest import Recipe, check_inputs, is_made, read_manifest, write_manifest
from rag_core.records import ScoredPair
from rag_core.stage import StageArgs, flag, run_stage
from rag_core.unfinished import UnfinishedWork

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(StageArgs):
    """Flags of the stage."""

    input_files: list[Path] = flag("files of ScoredPair records, made by generate_logits of either pipeline")
    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_scores")
    output_dir: Path | None = flag("folder of the output (default: beside the input)", None)
    max_passages: int | None = flag(
        "candidates kept of a query: half the places for the teacher's best, half spread over the rest of its ranking "
        "(default: all)",
        None,
    )


def run(args: Args) -> list[Path]:
    """Make the soft labels of each input file; return the outputs."""
    if args.max_passages is not None and args.max_passages < 2:
        raise UsageError(f"--max_passages is {args.max_passages}", "Pass at least 2: one candidate has no distribution")
    hashes = check_inputs(args.input_files)
    outputs = []
    for source in args.input_files:
        output = output_path(source, args.output_suffix, args.output_dir)
        recipe = Recipe(
            stage="embedding_distillation.generate_scores",
            flags={"max_passages": args.max_passages, "skip_bad_rows": args.skip_bad_rows},
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
    usable = [group for group in groups if len(group) > 1]
    single = len(groups) - len(usable)
    if single and not (args.skip_bad_rows and usable):
        first = next(group[0].query_id for group in groups if len(group) == 1)
        raise DataError(
            f"{single} queries have one candidate, which has nothing to be compared with (query_id {first!r})",
            "Give every query two or more" + (", or pass --skip_bad_rows to leave such queries out" if usable else ""),
            path=source,
        )
    scored_by = read_manifest(source) or {}
    with UnfinishedWork(output, recipe, overwrite=args.overwrite) as work:
        rows = write_records(output, (make_soft_labels(group, args.max_passages) for group in usable))
        write_manifest(
            output,
            recipe,
            rows=rows,
            teacher=scored_by.get("recipe", {}).get("model"),
            score_unit=scored_by.get("score_unit"),
            skipped={"bad_rows": len(bad_rows), "queries_with_one_candidate": single},
        )
        work.remove()
    logger.info("%s: %d queries", output, rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
