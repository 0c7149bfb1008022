"""Go or no-go: does this teacher rank better than this student, here, before anyone spends GPU hours?

RankingSample (labelled) -> check.json

python -m rag_core.check_teacher --teacher Qwen/Qwen3-Embedding-8B --student BAAI/bge-m3 --dataset data/test.jsonl

Scores a few hundred queries with both. On a clear no (the teacher is worse, and the 95 % interval excludes zero) it
exits with 1, unless --force is given.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import DataError, PipelineError, UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.records import RankingSample
from rag_core.base.stage import BadRowsArgs, SeedArgs, run_stage, show
from rag_core.engines.role_prompts import PromptArgs
from rag_core.files.atomic import atomic_write
from rag_core.files.jsonl import output_path, write_records
from rag_core.files.manifest import UNKNOWN, Recipe, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork

if TYPE_CHECKING:
    from rag_core.engines.identity import ModelInfo
    from rag_core.engines.options import EngineName
    from rag_core.evaluation.verdict import Comparison, Role
    from rag_core.metrics.ranking import PerQuery
    from rag_core.scoring.samples import SampleFile

STAGE = "rag_core.check_teacher"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, BadRowsArgs, PromptArgs):
    """Flags of the stage."""

    teacher: str = flag("model to teach", decides=False)
    student: str = flag("model to train; for a cross-encoder grown from an embedder, pass that embedder", decides=False)
    dataset: Path = flag("labelled RankingSample records of the domain", decides=False)
    queries: int = flag("queries to draw at random", 200, least=1)
    output_dir: Path | None = flag(
        "folder for sample, scores and check.json (default: <dataset>_check beside it)", None, decides=False
    )
    engine: Literal["auto", "vllm", "transformers", "sentence-transformers"] = flag(
        "engine of the teacher", "auto", decides=False
    )
    instruction: str | None = flag(
        "task instruction for an LLM teacher (default: as in generate_logits)", None, decides=False
    )
    max_length: int = flag("tokens, as in generate_logits", 4096, decides=False, least=1)
    batch_size: int = flag("sequences in a batch", 32, decides=False, least=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of both", "auto", decides=False)
    score_store: Path | None = flag(
        "folder that keeps scores (or vectors), as of generate_logits, which then computes none of them again",
        None,
        decides=False,
    )
    force: bool = flag("exit with 0 even on a clear no", False, decides=False)


def run(args: Args) -> Path:
    """Compare teacher and student, print table and verdict, and return the path of check.json.

    Raises:
        PipelineError: the verdict is no, and not `force`.
    """
    if args.queries < 2:
        raise UsageError(f"--queries is {args.queries}", "Pass --queries 2 or more")
    from rag_core.base.tables import format_rows
    from rag_core.engines.identity import describe_models
    from rag_core.engines.options import EngineOptions
    from rag_core.evaluation.verdict import compare_rankers
    from rag_core.metrics.ranking import measure
    from rag_core.scoring.room import settle_run
    from rag_core.scoring.scored_files import prepare_run, read_sources, scores_by_sample

    folder = args.output_dir or output_path(args.dataset, "_check", None).with_suffix("")
    (source,) = read_sources({args.dataset: folder}, skip_bad_rows=args.skip_bad_rows)
    _usable(source)  # told before anything about the models
    described = describe_models([args.student, args.teacher], args.prompt_names())
    models: dict[Role, ModelInfo] = {"student": described[0], "teacher": described[1]}
    settled: dict[Role, tuple[EngineName, EngineOptions]] = {}
    for role, model in models.items():
        logger.info("%s: %s", role, model.name)
        options = EngineOptions(
            model=model,
            instruction=args.instruction if role == "teacher" else None,
            max_length=args.max_length,
            batch_size=args.batch_size,
            dtype=args.dtype,
        )
        settled[role] = settle_run([source], args.engine if role == "teacher" else "auto", options)
    recipe = Recipe(stage=STAGE, flags=decisive(args), inputs={str(args.dataset): source.sha256})
    output = folder / "check.json"
    with UnfinishedWork(output, recipe, overwrite=True) as work:  # one run at a time has the folder
        sample_file, samples = _sample(args, source, folder, recipe)
        values: dict[Role, PerQuery] = {}
        for role in models:
            scores = folder / f"{role}.jsonl"
            outputs = {sample_file: scores}
            drawn = read_sources(outputs, skip_bad_rows=False)
            prepare_run(
                drawn,
                outputs,
                stage=STAGE,
                settled=settled[role],
                replace_stale=True,
                score_store=args.score_store,
            ).score()
            values[role] = measure(samples, scores_by_sample(scores, samples))
        comparison = compare_rankers(values, args.seed)
        show(format_rows(comparison.rows()))
        _write(args, output, comparison, len(samples))
        work.remove()
    _conclude(args, comparison, len(samples))
    return output


def _write(args: Args, path: Path, comparison: Comparison, queries: int) -> None:
    asked = {"teacher": args.teacher, "student": args.student, "dataset": str(args.dataset), "queries": queries}
    with atomic_write(path) as file:
        found = {"verdict": comparison.verdict, **asked, **comparison.as_json()}
        file.write(json.dumps(found, indent=2).encode() + b"\n")


def _conclude(args: Args, comparison: Comparison, queries: int) -> None:
    """Tell the verdict.

    Raises:
        PipelineError: it is no, and not `force`.
    """
    verdict, interval = comparison.verdict, comparison.interval
    if verdict == "go":
        logger.info("go: the teacher ranks better than the student (%s, %d queries)", interval, queries)
    elif verdict == "unclear":
        logger.warning(
            "WARNING: unclear: %d queries do not tell whether the teacher ranks better than the student (%s). "
            "Pass more --queries: a student cannot learn what its teacher does not know.",
            queries,
            interval,
        )
    elif not args.force:
        raise PipelineError(
            f"no: the teacher ranks worse than the student on {args.dataset} ({interval}, {queries} queries)",
            "Pass another --teacher or --instruction, or --force to go on nevertheless",
        )
    else:
        logger.warning("WARNING: no: the teacher ranks worse than the student (%s); going on, as forced", interval)


def _usable(source: SampleFile) -> list[RankingSample]:
    """Return the samples that can be compared on.

    Raises:
        DataError: there are fewer than 2.
    """
    usable = [sample for sample in source if sample.positive and sample.negative]
    if len(usable) < 2:
        raise DataError(
            f"has {len(usable)} queries with a positive and a negative, a comparison needs 2",
            "Pass labelled samples",
            path=source.path,
        )
    return usable


def _sample(args: Args, source: SampleFile, folder: Path, recipe: Recipe) -> tuple[Path, list[RankingSample]]:
    """Draw the queries, and keep them in a file."""
    usable = _usable(source)
    chosen = sorted(random.Random(args.seed).sample(range(len(usable)), min(args.queries, len(usable))))
    drawn = [usable[i] for i in chosen]
    path = folder / "sample.jsonl"
    write_records(path, drawn)
    instruction = (read_manifest(args.dataset) or UNKNOWN).instruction
    write_manifest(path, recipe, rows=len(drawn), instruction=instruction, skipped={"bad_rows": len(source.bad_rows)})
    return path, drawn


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
