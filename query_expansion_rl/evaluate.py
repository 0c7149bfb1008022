"""Put every way beside every other on the test queries, and say in words which to use.

workspace, Expansion, Ranking -> report.json, report.md, report.html

python -m query_expansion_rl.evaluate --baselines runs/expansion/baselines --expansions runs/expansion/dpo.jsonl \\
  --output_dir runs/expansion/report

An expansion is recommended only where its interval against the best way without training is above 0.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from query_expansion_rl.learning.selector import SELECTION
from query_expansion_rl.report.evaluation import Compared, Evaluation, Reranking
from query_expansion_rl.report.rows import Gate, Searchers
from query_expansion_rl.report.written import read_rankings, read_written, selected_rankings
from query_expansion_rl.retrieval.encoding import ExpansionEncoder
from query_expansion_rl.retrieval.searching import QUERY_WEIGHT
from query_expansion_rl.retrieval.workspace import (
    JUDGEMENTS,
    RANKINGS,
    SUMMARY,
    TOPICS,
    Workspace,
    read_workspace,
)
from rag_core.base.flags import decisive, flag, flags_of
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage, show
from rag_core.base.tables import format_rows
from rag_core.corpora.corpus import ARRAYS, DOCUMENTS
from rag_core.files.kept_times import KeptTimes
from rag_core.files.manifest import Recipe, check_inputs, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished, remove_left_behind, save_together
from rag_core.scoring.engine_args import EngineArgs, check_engine
from rag_core.scoring.reranking import Reranker, check_no_reranker_flags, settle_reranker

if TYPE_CHECKING:
    from query_expansion_rl.report.findings import Report

STAGE = "query_expansion_rl.evaluate"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, SeedArgs, EngineArgs):
    """Flags of the stage; those of an engine are the reranker's."""

    baselines: Path = flag("folder that rank_baselines made", decides=False)
    expansions: list[Path] = flag("Expansion records for the test queries, one file or several", [], decides=False)
    selections: list[Path] = flag("folders that train --method select made", [], decides=False)
    rankings: list[Path] = flag("Ranking records of any other way to search", [], decides=False)
    output_dir: Path = flag("folder of the report", decides=False)
    control: str | None = flag("the method that learned from random samples; learned ones are held against it", None)
    query_weight: float = flag("of the query's terms, where those of the expansion have 1", QUERY_WEIGHT, least=0)
    gate: Gate = flag("teacher: use an expansion only where the teacher likes its ranking better", "teacher")
    second_retriever: Literal["bm25", "dense", "hybrid"] | None = flag(
        "another retriever that gets the same expansions (default: none)", None
    )
    dense_model: str | None = flag(
        "the embedder of the workspace, where it has moved; it embeds expansions", None, decides=False
    )
    examples_of: str | None = flag("row whose largest gains and losses are told (default: the best expansion's)", None)
    reranker: str | None = flag("cross-encoder or LLM reranker behind every row", None, decides=False)
    reranker_depth: int = flag("reranker: how many of the first passages it orders", 20, least=1, most=100)
    score_store: Path | None = flag("folder that keeps scores and vectors for other runs", None, decides=False)
    expect: Path | None = flag(
        "JSON list of expected figures, of the file `test`; a deviation, up or down, is an error", None, decides=False
    )


def run(args: Args) -> Path:
    """Write the report, print its table and the verdict; return the folder."""
    from query_expansion_rl.report.page import FILES, REPORT, read_report, write_report
    from query_expansion_rl.report.table import screen_table
    from rag_core.evaluation.expectation import check, read_expectations

    if not args.reranker:
        check_no_reranker_flags(args, ("score_store", "batch_size"))
    check_engine(args)
    expectations = read_expectations(args.expect) if args.expect else []
    workspace = read_workspace(args.baselines)
    compared = Compared(
        read_written(args.expansions, workspace),
        read_rankings(args.rankings, workspace) | selected_rankings(args.selections, workspace),
        control=args.control,
        shown=args.examples_of,
    )
    reranker = settle_reranker(args.reranker, args) if args.reranker else None
    recipe = _recipe(args, workspace, reranker)
    output = args.output_dir.resolve()
    if args.overwrite or not is_finished(output / REPORT, recipe):
        with UnfinishedWork(output, recipe, overwrite=args.overwrite) as work:
            if args.overwrite or not is_finished(output / REPORT, recipe):  # by another run, in the meantime
                report = _evaluate(args, workspace, compared, reranker, work.directory)

                def write(folder: Path) -> None:
                    write_report(folder, report)
                    facts = {"judged_by": report.judged_by, "verdict": report.verdict.outcome}
                    write_manifest(folder / REPORT, recipe, place=args.output_dir / REPORT, **facts)

                save_together(args.output_dir, work.directory / "report", write, names=FILES)
            work.remove()
    remove_left_behind(output, recipe)
    report = read_report(args.output_dir / REPORT)
    show(format_rows(screen_table(report)))
    show(report.headline)
    check(expectations, report.means())
    return args.output_dir


def _evaluate(args: Args, workspace: Workspace, compared: Compared, reranker: Reranker | None, folder: Path) -> Report:
    evaluation = Evaluation(
        workspace,
        _searchers(args, workspace, folder),
        KeptTimes(folder),
        query_weight=args.query_weight,
        gate=args.gate,
        seed=args.seed,
    )
    reranking = Reranking(reranker, args.reranker_depth, folder, args.score_store) if reranker else None
    return evaluation.report(compared, reranking)


def _searchers(args: Args, workspace: Workspace, folder: Path) -> Searchers:
    """Return the retrievers; the embedder is settled only where one of them embeds expansions."""
    settings, second = workspace.settings, args.second_retriever
    encode = None
    if {"dense", "hybrid"} & {settings.retriever, second}:
        encode = ExpansionEncoder(
            workspace, args.dense_model, folder, batch_size=args.batch_size, store=args.score_store
        )
    return Searchers(
        settings.retriever,
        workspace.searcher(settings.retriever, encode),
        workspace.vector_searcher() if settings.vectors and settings.retriever == "bm25" else None,
        second,
        workspace.searcher(second, encode) if second else None,
    )


def _recipe(args: Args, workspace: Workspace, reranker: Reranker | None) -> Recipe:
    """Return what decides the output; flags of the reranker stand in it where there is one."""
    names = [TOPICS, RANKINGS, JUDGEMENTS, SUMMARY, DOCUMENTS]
    if workspace.settings.vectors:
        names += [f"{workspace.settings.vectors}/{name}" for name in ARRAYS]
    selections = [path / SELECTION if path.is_dir() else path for path in args.selections]
    hashes = check_inputs([*(workspace.folder / name for name in names), *args.expansions, *args.rankings, *selections])
    flags = decisive(args)
    for field in flags_of(EngineArgs):
        flags.pop(field.name, None)
    scored_by, model = reranker.recipe if reranker else ({}, {})
    if not reranker:
        flags.pop("reranker_depth")
    return Recipe(STAGE, flags | scored_by, hashes, model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
