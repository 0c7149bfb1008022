"""Score every (query, passage) pair with a teacher.

RankingSample -> ScoredPair

python -m reranker_distillation.generate_logits --teacher Qwen/Qwen3-Reranker-8B --input_files data/train.jsonl

A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rag_core.jsonl import output_path
from rag_core.stage import StageArgs, flag, run_stage


@dataclasses.dataclass(kw_only=True)
class Args(StageArgs):
    """Flags of the stage."""

    input_files: list[Path] = flag("files of RankingSample records (.jsonl or .jsonl.gz)")
    teacher: str = flag("model that scores: LLM reranker, cross-encoder or embedder", "Qwen/Qwen3-Reranker-8B")
    engine: Literal["auto", "vllm", "transformers", "sentence-transformers"] = flag("what runs the teacher", "auto")
    vllm_runner: Literal["generate", "pooling"] = flag(
        "vLLM's way: generate is exact; pooling is faster, and must agree with generate on 20 pairs first", "generate"
    )
    output_suffix: str = flag("the output is <input stem><suffix>.jsonl", "_logits")
    output_dir: Path | None = flag("folder of the output (default: beside the input)", None)
    batch_size: int = flag("sequences in a batch (vLLM makes its own batches)", 32)
    max_length: int = flag("tokens of prompt, query and passage together; the passage is cut to fit", 4096)
    instruction: str | None = flag(
        "the task, as told to an LLM reranker (default: the data set's own where known, else web search)", None
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the teacher", "auto")
    gpu_memory_utilization: float = flag("share of the GPU memory that vLLM takes", 0.9)
    tensor_parallel_size: int = flag("GPUs that share one copy of the teacher in vLLM", 1)


def run(args: Args) -> list[Path]:
    """Score each input file; return the outputs."""
    from rag_core.engines.options import EngineOptions
    from rag_core.scored_files import score_files

    outputs = {path: output_path(path, args.output_suffix, args.output_dir) for path in args.input_files}
    score_files(
        outputs,
        stage="reranker_distillation.generate_logits",
        engine=args.engine,
        options=EngineOptions(
            model=args.teacher,
            instruction=args.instruction,
            max_length=args.max_length,
            batch_size=args.batch_size,
            dtype=args.dtype,
            vllm_runner=args.vllm_runner,
            gpu_memory_utilization=args.gpu_memory_utilization,
            tensor_parallel_size=args.tensor_parallel_size,
        ),
        overwrite=args.overwrite,
        skip_bad_rows=args.skip_bad_rows,
    )
    return list(outputs.values())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    return run_stage(Args, run, __doc__ or "", argv)


if __name__ == "__main__":
    sys.exit(main())
