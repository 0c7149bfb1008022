"""Train a language model to write expansions, or choose among the ways that need none, query by query.

Demonstration, Preference or train topics -> model folder with expander.json, or selection.json

python -m query_expansion_rl.train --method dpo --baselines runs/expansion/baselines --model models/rft \\
    --train_file runs/expansion/pairs/preferences.jsonl --output_dir models/dpo

Every field of trl's SFTConfig (rft), DPOConfig (dpo) or GRPOConfig (grpo) is also a flag, under its own name, e.g.
--learning_rate 1e-5 --max_steps 200 --beta 0.01 --report_to wandb. Adapters are trained, and merged at the end. The
dev queries choose the step that is kept, and step 0, the start, is among them. To go on with a run that was stopped,
give the same command again: it starts from the last checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from query_expansion_rl.records import Topic
from query_expansion_rl.retrieval.workspace import JUDGEMENTS, RANKINGS, SUMMARY, TOPICS, Workspace, read_workspace
from query_expansion_rl.rewards.reward import EXAMPLE_TEXTS, Reward, RewardArgs
from query_expansion_rl.rewards.searcher import reward_searcher
from query_expansion_rl.writing.forms import Output
from rag_core.base.errors import UsageError
from rag_core.base.flags import decisive, flag
from rag_core.base.processes import is_main_process
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
from rag_core.corpora.corpus import DOCUMENTS
from rag_core.files.bad_rows import BadRows
from rag_core.files.manifest import Recipe, check_inputs, check_output_folder, unfinished_folder, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

if TYPE_CHECKING:
    from query_expansion_rl.learning.dev_queries import DevQueries
    from query_expansion_rl.learning.training import LearnerSettings

STAGE = "query_expansion_rl.train"


@dataclasses.dataclass(kw_only=True)
class Args(RewardArgs, SeedArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    takes_further_flags: ClassVar[bool] = True

    method: Literal["select", "rft", "dpo", "grpo"] = flag(
        "select: choose among the rankings of rank_baselines per query; rft: imitate demonstrations; dpo: prefer the "
        "better of two; grpo: write, be rewarded, and write better"
    )
    baselines: Path = flag("folder that rank_baselines made", decides=False)
    output_dir: Path = flag("folder of what was learned", decides=False)
    model: str | None = flag("rft, dpo, grpo: language model to start from", None, decides=False)
    train_file: Path | None = flag(
        "rft: Demonstration records, dpo: Preference records, made by create_pairs", None, decides=False
    )
    prompt: Output | None = flag(
        "what is written for a query (default: as the training file or the model says, else keywords)", None
    )
    max_new_tokens: int | None = flag(
        "tokens of an expansion (default: as the model was trained, else 24 of keywords, 64 of a document)",
        None,
        least=1,
    )
    lora_rank: int = flag("rank of the adapters on all linear layers", 16, least=1)
    lora_alpha: float | None = flag(
        "the adapters' factor is this over the rank (default: twice the rank)", None, least=0
    )
    dev_every: int = flag("steps after which the dev queries are measured, and a checkpoint is written", 10, least=1)
    dev_queries: int = flag("dev queries that are measured, at most: the first", 100, least=1)
    keep: Literal["best", "last"] = flag(
        "whose weights: those of the best step on the dev queries, step 0 among them, or of the last step", "best"
    )
    patience: int = flag("keep best: stop after this many measurements without a new best", 3, least=1)
    use_vllm: Literal["no", "colocate", "server"] = flag("grpo: let vLLM write, on the same GPU or a server", "no")
    variants: list[str] | None = flag(
        "select: methods of rankings.jsonl to choose from (default: all but the judge itself)", None
    )
    shuffle_rewards: bool = flag(
        "select: deal each query's rewards to its ways at random: the control, which learns from noise", False
    )


def run(args: Args) -> Path:
    """Train, unless the same was finished already; return the folder."""
    _check_flags(args)
    workspace = read_workspace(args.baselines)
    names = [TOPICS, DOCUMENTS, SUMMARY, JUDGEMENTS, *([RANKINGS] if args.method == "select" else [])]
    inputs = check_inputs([*(args.baselines / name for name in names), *([args.train_file] if args.train_file else [])])
    return _select(args, workspace, inputs) if args.method == "select" else _learn(args, workspace, inputs)


def _check_flags(args: Args) -> None:
    if args.method == "select" and (args.model or args.train_file or args.further_flags):
        given = "--model" if args.model else "--train_file" if args.train_file else args.further_flags[0]
        raise UsageError(f"{given} has no effect on --method select", "Leave it out")
    if args.method != "select" and args.model is None:
        raise UsageError(f"--method {args.method} needs a model to start from", "Pass --model")
    if args.method != "select" and (args.variants or args.shuffle_rewards):
        given = "--variants" if args.variants else "--shuffle_rewards"
        raise UsageError(f"{given} has no effect on --method {args.method}", "Leave it out")
    if (args.method in ("rft", "dpo")) != (args.train_file is not None):
        does = "learns from its own samples" if args.train_file else "needs what create_pairs made"
        raise UsageError(
            f"--method {args.method} {does}", "Leave out --train_file" if args.train_file else "Pass --train_file"
        )


def _learn(args: Args, workspace: Workspace, inputs: dict[str, str]) -> Path:
    from query_expansion_rl.learning.data import read_training_rows, settle_form
    from query_expansion_rl.learning.policy import LoraSettings
    from query_expansion_rl.learning.training import LearnerSettings, check_vllm, parse_arguments, train
    from rag_core.distillation.checkpoints import NO_SELECTION, other_processes
    from rag_core.distillation.train_args import decisive_settings
    from rag_core.engines.model_files import exact_version

    assert args.model is not None and args.method != "select"  # _check_flags sees to it
    bad_rows = BadRows(skip=args.skip_bad_rows)
    form = settle_form(args.model, args.train_file, args.prompt, args.max_new_tokens)
    lora = LoraSettings(args.lora_rank, 2.0 * args.lora_rank if args.lora_alpha is None else args.lora_alpha)
    settings = LearnerSettings(args.method, args.model, form, lora)
    patience = args.patience if args.keep == "best" else None
    arguments = parse_arguments(
        settings,
        args.further_flags,
        seed=args.seed,
        dev_every=args.dev_every,
        patience=patience,
        use_vllm=args.use_vllm,
    )
    check_vllm(args.use_vllm)
    rows = read_training_rows(args.train_file, args.method, workspace, bad_rows) if args.train_file else None
    flags = decisive(args) | {"form": dataclasses.asdict(form), "lora_alpha": lora.alpha}
    recipe = Recipe(STAGE, flags | decisive_settings(arguments, NO_SELECTION), inputs, exact_version(args.model))
    check_output_folder(args.output_dir, [*inputs, args.model])
    if not args.overwrite and is_finished(args.output_dir, recipe):
        return args.output_dir
    conflicts = other_processes(unfinished_folder(args.output_dir), arguments)
    with UnfinishedWork(args.output_dir, recipe, overwrite=args.overwrite, conflicts=conflicts) as work:
        if not args.overwrite and is_finished(args.output_dir, recipe):  # by another run, in the meantime
            return args.output_dir
        arguments.output_dir = str(work.directory)
        dev = _dev_queries(args, workspace, settings, work.directory)
        examples: Sequence[Any] = _topics(workspace, dev.reward) if rows is None else rows
        facts = train(settings, arguments, examples, dev, args.output_dir, patience=patience)
        if is_main_process():
            write_manifest(args.output_dir, recipe, **facts, form=flags["form"], skipped={"bad_rows": len(bad_rows)})
            work.remove()
    return args.output_dir


def _dev_queries(args: Args, workspace: Workspace, settings: LearnerSettings, folder: Path) -> DevQueries:
    from query_expansion_rl.learning.dev_queries import DevQueries

    searcher = reward_searcher(workspace, args.dense_model, folder)
    reward = Reward.of(workspace, searcher, args.reward_settings, EXAMPLE_TEXTS)
    by_qrels = dataclasses.replace(args.reward_settings, reward="qrels")
    truth = Reward.of(workspace, searcher, by_qrels) if workspace.qrels(workspace.of("dev")) else None
    topics = [topic for topic in workspace.of("dev") if reward.measures(topic.query_id)]
    return DevQueries(topics[: args.dev_queries], settings.form, reward, truth)


def _topics(workspace: Workspace, reward: Reward) -> list[Topic]:
    return [topic for topic in workspace.of("train") if reward.measures(topic.query_id)]


def _select(args: Args, workspace: Workspace, inputs: dict[str, str]) -> Path:
    from query_expansion_rl.learning.selection import learn_selection

    recipe = Recipe(STAGE, decisive(args), inputs)
    check_output_folder(args.output_dir, [*inputs])
    if not args.overwrite and is_finished(args.output_dir, recipe):
        return args.output_dir
    with UnfinishedWork(args.output_dir, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(args.output_dir, recipe):  # by another run, in the meantime
            return args.output_dir
        learned = learn_selection(workspace, args.variants, args.reward, args.seed, shuffled=args.shuffle_rewards)
        learned.save(args.output_dir, work.directory / "selection")
        write_manifest(args.output_dir, recipe, **learned.facts())
        work.remove()
    show(learned.table())
    return args.output_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
