"""Reward expansions: how much better a judge likes the ranking with each than that of the query alone.

Expansion -> Rewarded

python -m query_expansion_rl.score_expansions --baselines runs/expansion/baselines \\
    --input_file runs/expansion/samples.jsonl --output_file runs/expansion/rewarded.jsonl

It writes no text itself, so it can be run again with another reward. Where the topics have qrels, it prints how far the
label-free reward agrees with them.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from query_expansion_rl.records import Expansion, Rewarded
from query_expansion_rl.retrieval.searching import Searcher
from query_expansion_rl.retrieval.workspace import JUDGEMENTS, SUMMARY, TOPICS, Workspace, read_workspace
from query_expansion_rl.rewards.reward import EXAMPLE_TEXTS, Reward, RewardArgs, Sample, Worth
from query_expansion_rl.rewards.samples import read_expansions
from query_expansion_rl.rewards.searcher import reward_searcher
from query_expansion_rl.rewards.summary import Summary, check_variance, summarise
from rag_core.base.errors import DataError
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import BadRowsArgs, OverwriteArgs, run_stage, show
from rag_core.corpora.corpus import DOCUMENTS
from rag_core.files.bad_rows import BadRows
from rag_core.files.jsonl import write_records
from rag_core.files.manifest import UNKNOWN, Recipe, check_inputs, read_manifest, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished

STAGE = "query_expansion_rl.score_expansions"

_AT_ONCE = 256  # samples

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(RewardArgs, OverwriteArgs, BadRowsArgs):
    """Flags of the stage."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    input_file: Path = flag("Expansion records, made by generate_expansions", decides=False)
    output_file: Path = flag("the Rewarded records", decides=False)
    seed: int = flag("seed of the intervals in the table", 42, decides=False, least=0, most=2**32 - 1)


def run(args: Args) -> Path:
    """Reward the expansions, and print what the rewards are good for; return the output."""
    workspace = read_workspace(args.baselines)
    bad_rows = BadRows(skip=args.skip_bad_rows)
    rows = read_expansions(args.input_file, Expansion, workspace, bad_rows)
    files = [args.baselines / name for name in (TOPICS, DOCUMENTS, SUMMARY, JUDGEMENTS)]
    recipe = Recipe(STAGE, decisive(args), check_inputs([args.input_file, *files]))
    if args.overwrite or not is_finished(args.output_file, recipe):
        with UnfinishedWork(args.output_file, recipe, overwrite=args.overwrite) as work:
            if args.overwrite or not is_finished(args.output_file, recipe):  # by another run, in the meantime
                searcher = reward_searcher(workspace, args.dense_model, work.directory)
                _write(args, _Rewards(args, workspace, searcher), rows, recipe, len(bad_rows))
                work.remove()
    show((read_manifest(args.output_file) or UNKNOWN).facts["table"])
    return args.output_file


class _Rewards:
    """The reward that is asked for, and what the qrels say."""

    def __init__(self, args: Args, workspace: Workspace, searcher: Searcher) -> None:
        settings = args.reward_settings
        self.teacher = workspace.summary.teacher if args.reward == "teacher" else "qrels"
        self.asked = Reward.of(workspace, searcher, settings, EXAMPLE_TEXTS)
        self.truth = Reward.of(workspace, searcher, dataclasses.replace(settings, reward="qrels"))

    def summarise(self, rows: Sequence[Rewarded], seed: int) -> Summary:
        """Count over the rows; where there are qrels, label-free rewards are held against them."""
        if self.teacher == "qrels":
            return summarise(rows, None, seed)
        judged = [row for row in rows if self.truth.measures(row.query_id)]
        changes = dict(
            zip(map(_key, judged), (worth.parts["gain"] for worth in _worth(self.truth, judged)), strict=True)
        )
        return summarise(rows, [changes.get(_key(row)) for row in rows], seed)


def _write(args: Args, rewards: _Rewards, rows: Sequence[Expansion], recipe: Recipe, bad_rows: int) -> None:
    usable = [row for row in rows if rewards.asked.measures(row.query_id)]
    if not usable:
        whose = "the teacher has judged" if args.reward == "teacher" else "qrels have judged"
        raise DataError(f"has no query whose passages {whose}", "Pass another --reward", path=args.input_file)
    rewarded = [
        Rewarded(**dataclasses.asdict(row), reward=worth.reward, parts=dict(worth.parts), base=worth.base)
        for row, worth in zip(usable, _worth(rewards.asked, usable), strict=True)
    ]
    summary = rewards.summarise(rewarded, args.seed)
    check_variance(summary)
    write_records(args.output_file, rewarded)
    source = read_manifest(args.input_file) or UNKNOWN
    write_manifest(
        args.output_file,
        recipe,
        rows=len(rewarded),
        teacher={"name": rewards.teacher},
        written_by=source.model,
        prompt=source.flags.get("prompt"),
        table=summary.table(),
        summary=dataclasses.asdict(summary),
        skipped={"bad_rows": bad_rows, "rows_of_queries_without_gains": len(rows) - len(usable)},
    )


def _key(row: Expansion) -> tuple[str, str, int]:
    return row.query_id, row.method, row.sample


def _worth(reward: Reward, rows: Sequence[Expansion]) -> list[Worth]:
    found: list[Worth] = []
    with tqdm(total=len(rows), desc=f"reward by {reward.settings.reward}", unit="sample", disable=None) as bar:
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            found += reward.score_all([Sample(row.query_id, row.text, row.cut) for row in some])
            bar.update(len(some))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
