"""The stage generate_logits of both pipelines: the same flags, another teacher by default."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, show
from rag_core.files.jsonl import output_path
from rag_core.scoring.engine_args import EngineArgs, check_engine, engine_options
from rag_core.scoring.prescreen_args import PrescreenArgs, check_prescreen

if TYPE_CHECKING:
    from rag_core.engines.options import EngineChoice


@dataclasses.dataclass(kw_only=True)
class GenerateLogitsArgs(OverwriteArgs, BadRowsArgs, EngineArgs, PrescreenArgs):
    """Flags of the stage; each pipeline has its own default `teacher`."""

    input_files: list[Path] = flag("files of RankingSample records (.jsonl or .jsonl.gz)", decides=False)
    teacher: str = flag("model that scores: LLM reranker, cross-encoder or embedder", decides=False)
    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_logits", decides=False)
    output_dir: Path | None = flag("folder of the output (default: beside the input)", None, decides=False)
    score_store: Path | None = flag(
        "folder that keeps scores (or an embedder's vectors) for other files and runs with the same teacher",
        None,
        decides=False,
    )
    dry_run: bool = flag("print what the run would compute and how long it would take, then stop", False, decides=False)
    gpu: Literal["A10", "A100", "H100", "H200", "B200", "L4", "L40S", "RTX4090", "cpu"] = flag(
        "dry_run: hardware to estimate for; cpu measures this machine", "H100", decides=False
    )
    gpu_price: float | None = flag(
        "dry_run: price of that hardware per hour; the cost is printed, too", None, decides=False, least=0
    )
    parity: int = flag("first score this many pairs with every installed engine, and compare", 0, decides=False)


def generate_logits(args: GenerateLogitsArgs, stage: str) -> list[Path]:
    """Score each input file; return the outputs.

    Raises:
        PipelineError: as `scored_files.prepare_run` and `ScoringRun.score`.
    """
    if args.gpu_price is not None and not args.dry_run:
        raise UsageError("--gpu_price is for --dry_run", "Pass --dry_run as well, or leave out --gpu_price")
    if args.parity < 0 or args.parity == 1:
        raise UsageError(f"--parity is {args.parity}", "Pass --parity 2 or more, or leave it out")
    check_engine(args)
    check_prescreen(args)
    from rag_core.engines.identity import describe_model
    from rag_core.scoring.parity import check_parity
    from rag_core.scoring.plan import make_plan
    from rag_core.scoring.prescreen import settle_prescreen
    from rag_core.scoring.prescreen_plan import plan_prescreening
    from rag_core.scoring.room import settle_run
    from rag_core.scoring.samples import spread_pairs
    from rag_core.scoring.scored_files import prepare_run, read_sources

    outputs = {path: output_path(path, args.output_suffix, args.output_dir) for path in args.input_files}
    sources = read_sources(outputs, skip_bad_rows=args.skip_bad_rows)  # what is wrong with them is told first
    engine: EngineChoice = "auto" if args.engine == "ray" else args.engine
    options = engine_options(args, describe_model(args.teacher, args.prompt_names()))
    settled = settle_run(sources, engine, options)
    prescreen = settle_prescreen(args, sources, options) if args.prescreen else None
    run = prepare_run(
        sources,
        outputs,
        stage=stage,
        settled=settled,
        overwrite=args.overwrite,
        score_store=args.score_store,
        prescreen=prescreen,
    )
    if args.dry_run:
        if run.todo:
            plan = make_plan(run.sources, run.options, run.folders, run.scope, args.gpu)
            show("\n".join(plan.lines(args.gpu_price)))
            if prescreen:
                show("\n".join(plan_prescreening(run, prescreen, plan).lines(args.gpu_price)))
        return []
    if args.parity and run.todo:
        check_parity(run.engine, run.options, spread_pairs(run.sources[0], args.parity))
    run.score()
    return list(outputs.values())
