"""Choose what to learn from: the best expansions of each train query, and pairs of its best and its worst.

Rewarded -> Demonstration, Preference

python -m query_expansion_rl.create_pairs --baselines runs/expansion/baselines \\
    --input_file runs/expansion/rewarded.jsonl --output_dir runs/expansion/pairs

--choose random is the control: random expansions of the same queries, as many of each. What learns from rewards must
beat what learns from them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from query_expansion_rl.records import Demonstration, Preference, Rewarded
from query_expansion_rl.retrieval.workspace import TOPICS, read_workspace
from query_expansion_rl.rewards.pairs import Choice, Pairs, choose_pairs
from query_expansion_rl.rewards.samples import read_expansions
from query_expansion_rl.rewards.summary import by_query
from query_expansion_rl.writing.forms import Output, untrained_form
from rag_core.base.errors import DataError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, SeedArgs, run_stage, show
from rag_core.base.tables import format_rows
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "query_expansion_rl.create_pairs"

DEMONSTRATIONS, PREFERENCES = "demonstrations.jsonl", "preferences.jsonl"


@dataclasses.dataclass(kw_only=True)
class Args(SeedArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    input_file: Path = flag("Rewarded records, made by score_expansions", decides=False)
    output_dir: Path = flag(f"folder of {DEMONSTRATIONS} and {PREFERENCES}", decides=False)
    choose: Choice = flag("best: by the reward; random: the control", "best")
    best: int = flag("demonstrations of a query, at most", 2, least=1)
    min_margin: float = flag("least reward of a query's best above its worst for a pair", 0.02, least=0)
    prompt: Output | None = flag(
        "what is written for a query: the form that the model is trained in (default: as the expansions were)",
        None,
        decides=False,
    )


def run(args: Args) -> list[Path]:
    """Choose, and write both files; return them."""
    workspace = read_workspace(args.baselines)
    bad_rows = BadRows(skip=args.skip_bad_rows)
    rows = read_expansions(args.input_file, Rewarded, workspace, bad_rows)
    prompt = args.prompt or _prompt_of(args.input_file)
    inputs = check_inputs([args.input_file, args.baselines / TOPICS])
    recipe = Recipe(STAGE, decisive(args) | {"prompt": prompt}, inputs)
    outputs = [args.output_dir / DEMONSTRATIONS, args.output_dir / PREFERENCES]
    queries = {topic.query_id: topic.query for topic in workspace.of("train")}
    groups = by_query([row for row in rows if row.query_id in queries])
    if not groups:
        raise DataError(
            "has no expansion of a train query", "Run generate_expansions --split train", path=args.input_file
        )
    form = untrained_form(prompt, style="completion", shots=0)
    pairs = choose_pairs(
        groups,
        lambda query_id: form.text(queries[query_id]),
        args.choose,
        best=args.best,
        min_margin=args.min_margin,
        seed=args.seed,
    )
    if not pairs.preferences:
        raise DataError(
            f"no query has two expansions whose rewards are {args.min_margin:g} or more apart",
            "Lower --min_margin, or write more expansions of a query (generate_expansions --num_samples)",
            path=args.input_file,
        )
    facts: dict[str, Any] = {
        "queries": len(groups),
        "form": dataclasses.asdict(form),
        "skipped": {"bad_rows": len(bad_rows), "rows_of_other_splits": len(rows) - sum(map(len, groups.values()))},
    }
    made: list[tuple[Path, Sequence[Demonstration | Preference]]] = [
        (outputs[0], pairs.demonstrations),
        (outputs[1], pairs.preferences),
    ]
    for path, records in made:
        _write(args, path, records, recipe, facts)
    show(_table(args, pairs, len(groups)))
    return outputs


def _prompt_of(path: Path) -> Output:
    """Return what was asked for when the expansions were written; keywords where nobody knows."""
    told = (read_manifest(path) or UNKNOWN).facts.get("prompt")
    return "document" if told == "document" else "keywords"


def _write(
    args: Args, path: Path, records: Sequence[Demonstration | Preference], recipe: Recipe, facts: dict[str, Any]
) -> None:
    if not args.overwrite and is_finished(path, recipe):
        return
    with UnfinishedWork(path, recipe, overwrite=args.overwrite) as work:
        if not args.overwrite and is_finished(path, recipe):  # by another run, in the meantime
            return
        write_manifest(path, recipe, rows=write_records(path, records), **facts)
        work.remove()


def _table(args: Args, pairs: Pairs, queries: int) -> str:
    rewards = [row.reward for row in pairs.demonstrations]
    margins = [row.margin for row in pairs.preferences]
    head = [f"--choose {args.choose}", "rows", "train queries without", "mean reward, margin"]
    rows = [
        ["demonstrations", len(rewards), pairs.left_out["without_demonstration"], _mean(rewards)],
        ["preferences", len(margins), pairs.left_out["without_pair"], _mean(margins)],
    ]
    return format_rows([head, *([str(cell) for cell in row] for row in rows)]) + f"\nof {queries} train queries"


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):+.4f}" if values else "-"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
