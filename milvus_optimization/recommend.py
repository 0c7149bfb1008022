"""Recommend an index and a way to rank that keep the constraints, say what they are worth, and write the code.

VectorVariant, IndexTrial, RetrievalTrial -> recommendation.json, report.html, report.md, collection.py

python -m milvus_optimization.recommend --vectors runs/milvus/vectors --variants runs/milvus/variants.jsonl \\
  --index_trials runs/milvus/index_trials.jsonl --retrieval_trials runs/milvus/retrieval_trials.jsonl \\
  --output_dir runs/milvus/recommendation

Every choice is made by the tune half of the judged queries; every figure of the report is of the other half.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from milvus_optimization.backends.space import BACKEND_INDEXES
from milvus_optimization.report.evidence import Sources, read_evidence
from milvus_optimization.report.index_choice import Constraints
from milvus_optimization.report.recommendation import recommend
from milvus_optimization.retrieval.choice import Target
from rag_core.base.flags import decisive, flag
from rag_core.base.stage import OverwriteArgs, SeedArgs, run_stage, show
from rag_core.files.manifest import Recipe, write_manifest
from rag_core.files.unfinished import UnfinishedWork, is_finished, remove_left_behind, save_together

STAGE = "milvus_optimization.recommend"

logger = logging.getLogger(__name__)


@dataclasses.dataclass(kw_only=True)
class Args(OverwriteArgs, SeedArgs):
    """Flags of the stage."""

    vectors: Path = flag("folder that embed_corpus made", decides=False)
    variants: Path | None = flag("VectorVariant records of compare_vectors", None, decides=False)
    index_trials: list[Path] = flag("IndexTrial records of sweep_indexes, of one backend or several", decides=False)
    retrieval_trials: Path = flag("RetrievalTrial records of tune_retrieval", decides=False)
    labelled_trials: Path | None = flag(
        "RetrievalTrial records of the same ways to rank judged by labels, where those above were judged by a teacher",
        None,
        decides=False,
    )
    output_dir: Path = flag("folder of the report", decides=False)
    target: Target = flag("what the choice is to be applied to: milvus-lite, or a server", "lite")
    dense_only: bool = flag("choose no way to rank with BM25, which a Milvus before version 2.5 does not have", False)
    model: str | None = flag("folder of the vectors (default: of the best way to rank)", None)
    max_loss: float = flag("nDCG@10 that the index may lose against exact search, on the tune half", 0.005)
    max_ms: float | None = flag(
        "median milliseconds that a query may take in the index (default: no limit)", None, least=0
    )
    max_mb: float | None = flag("megabytes that the index may take (default: no limit)", None, least=0)
    min_recall: float | None = flag("least recall of the index (default: no limit)", None, least=0, most=1)
    tune_fraction: float = flag("share of the judged queries to choose by, as in the trials", 0.5, least=0, most=1)

    @property
    def constraints(self) -> Constraints:
        """What the index must keep."""
        return Constraints(self.max_loss, self.max_ms, self.max_mb, self.min_recall)


def run(args: Args) -> Path:
    """Choose, write the report, and print the verdict; return the folder."""
    sources = Sources(
        args.vectors, args.index_trials, args.retrieval_trials, args.variants, labelled_trials=args.labelled_trials
    )
    evidence = read_evidence(sources, args.tune_fraction)
    outcome = recommend(
        evidence,
        args.constraints,
        target=args.target,
        dense_only=args.dense_only,
        model=args.model,
        available=BACKEND_INDEXES[args.target],
        tune_fraction=args.tune_fraction,
        seed=args.seed,
    )
    from milvus_optimization.report.page import APPLIED, FILES, RECOMMENDATION, write_report

    output = args.output_dir / RECOMMENDATION
    recipe = Recipe(STAGE, decisive(args), evidence.inputs)
    if not args.overwrite and is_finished(output, recipe):
        remove_left_behind(args.output_dir.resolve(), recipe)
    else:
        with UnfinishedWork(args.output_dir.resolve(), recipe, overwrite=args.overwrite) as work:

            def write(folder: Path) -> None:
                write_report(folder, evidence, outcome, args.seed)
                judged = {"judged_by": evidence.judged_by, "verdict": outcome.recommendation.verdict}
                write_manifest(folder / RECOMMENDATION, recipe, place=output, **judged)

            save_together(args.output_dir, work.directory / "report", write, names=FILES, kept=APPLIED)
            work.remove()
    show(outcome.recommendation.sentence)
    return args.output_dir


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
