"""What stages share that turn files of a teacher's scores into training data: inputs, recipes, outputs, manifests."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from rag_core.base.errors import DataError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.records import Record, ScoredPair
from rag_core.base.stage import BadRowsArgs, OverwriteArgs
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import output_path, read_groups, write_records
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class DerivedFilesArgs(OverwriteArgs, BadRowsArgs):
    """Flags of such a stage; each gives `output_suffix` its own default."""

    input_files: list[Path] = flag(
        "files of ScoredPair records, made by generate_logits of either pipeline", decides=False
    )
    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", decides=False)
    output_dir: Path | None = flag("folder of the output (default: beside the input)", None, decides=False)
    min_spread: float = flag(
        "leave out queries whose candidates the teacher cannot tell apart: the standard deviation of their scores is "
        "below this (in the score's unit)",
        0.0,
    )


@dataclasses.dataclass(frozen=True)
class Derived:
    """What a file became: the records, how many queries were left out by reason, and both in words."""

    records: Iterable[Record]
    skipped: Mapping[str, int]
    summary: str


def derive_files(
    args: DerivedFilesArgs,
    derive: Callable[[list[list[ScoredPair]], Path], Derived],
    *,
    stage: str,
) -> list[Path]:
    """Derive the output of each input file that is not finished yet; return the outputs.

    Args:
        derive: makes what is written from a file's groups, one per query, and its path (for errors).

    Raises:
        PipelineError: as `check_inputs`, `read_groups`, `is_made` and `derive` raise.
    """
    if args.min_spread < 0:
        raise UsageError(f"--min_spread is {args.min_spread:g}", "Pass 0 or more: no standard deviation is below 0")
    hashes = check_inputs(args.input_files)
    outputs = []
    for source in args.input_files:
        output = output_path(source, args.output_suffix, args.output_dir)
        recipe = Recipe(
            stage=stage,
            flags=decisive(args),
            inputs={str(source): hashes[str(source)]},
        )
        outputs.append(output)
        if not args.overwrite and is_finished(output, recipe):
            continue
        bad_rows = BadRows(skip=args.skip_bad_rows)
        groups = read_groups(source, ScoredPair, bad_rows=bad_rows)
        spread = [group for group in groups if np.std([pair.score for pair in group]) >= args.min_spread]
        if not spread:
            raise DataError(
                f"has no query whose scores have a standard deviation of {args.min_spread:g}",
                "Lower --min_spread",
                path=source,
            )
        derived = derive(spread, source)
        scored_by = read_manifest(source) or UNKNOWN
        prescreened = {"prescreen": scored_by.facts["prescreen"]} if "prescreen" in scored_by.facts else {}
        with UnfinishedWork(output, recipe, overwrite=args.overwrite) as work:
            if not args.overwrite and is_finished(output, recipe):  # by another run, in the meantime
                continue
            rows = write_records(output, derived.records)
            write_manifest(
                output,
                recipe,
                rows=rows,
                teacher=scored_by.model,
                score_unit=scored_by.score_unit,
                skipped={
                    "bad_rows": len(bad_rows),
                    "queries_below_min_spread": len(groups) - len(spread),
                    **derived.skipped,
                },
                **prescreened,
            )
            work.remove()
        logger.info("%s: %s", output, derived.summary)
    return outputs
