"""Measure the student before and after training, beside BM25 and the teacher, in and out of its domain.

RankingSample (labelled) -> report.json, report.md, report.html, per_query.jsonl

python -m embedding_distillation.evaluate --after models/student --in_domain data/test.jsonl --output_dir report

Any embedder, cross-encoder or LLM reranker may be "before", "after" or the teacher. With --corpus, embedders search a
whole corpus: the table has what they find beside BM25 and the hybrid.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.flags import flag
from rag_core.base.stage import run_stage
from rag_core.evaluation.corpus_args import CorpusArgs
from rag_core.evaluation.evaluate import EvaluateArgs, evaluate

STAGE = "embedding_distillation.evaluate"


@dataclasses.dataclass(kw_only=True)
class Args(EvaluateArgs, CorpusArgs):
    """Flags of the stage."""

    before: str = flag("the student before training", "BAAI/bge-m3", decides=False)
    in_domain: list[Path] = flag("labelled samples of the training domain (needed without --corpus)", [], decides=False)


def run(args: Args) -> Path:
    """Write the report, print its table, and return the folder."""
    return evaluate(args, STAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
