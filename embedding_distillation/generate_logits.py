"""Score every (query, passage) pair with a teacher, by default an LLM embedder: each text is embedded once.

RankingSample -> ScoredPair

python -m embedding_distillation.generate_logits --teacher Qwen/Qwen3-Embedding-8B --input_files data/train.jsonl

A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_core.base.flags import flag
from rag_core.base.stage import run_stage
from rag_core.scoring.generate_logits import GenerateLogitsArgs, generate_logits

STAGE = "embedding_distillation.generate_logits"


@dataclasses.dataclass(kw_only=True)
class Args(GenerateLogitsArgs):
    """Flags of the stage."""

    teacher: str = flag(
        "model that scores: LLM reranker, cross-encoder or embedder", "Qwen/Qwen3-Embedding-8B", decides=False
    )


def run(args: Args) -> list[Path]:
    """Score each input file; return the outputs."""
    return generate_logits(args, STAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
