"""Measure the student before and after training, beside BM25 and the teacher, in and out of its domain.

RankingSample (labelled) -> report.json, report.md, report.html, per_query.jsonl

python -m reranker_distillation.evaluate --after models/student --in_domain data/test.jsonl --output_dir reports/student

"before" may be any cross-encoder or embedder: for a student that was grown from an encoder, that encoder.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.flags import flag
from rag_core.base.stage import run_stage
from rag_core.evaluation.evaluate import EvaluateArgs, evaluate

STAGE = "reranker_distillation.evaluate"


@dataclasses.dataclass(kw_only=True)
class Args(EvaluateArgs):
    """Flags of the stage."""

    before: str = flag("the student before training", "BAAI/bge-reranker-v2-m3", decides=False)


def run(args: Args) -> Path:
    """Write the report, print its table, and return the folder."""
    return evaluate(args, STAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
