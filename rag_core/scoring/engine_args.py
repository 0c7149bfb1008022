"""What runs a model, and how: the flags of every stage that scores or embeds whole files."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from rag_core.base.errors import UsageError
from rag_core.base.flags import flag
from rag_core.engines.role_prompts import PromptArgs

if TYPE_CHECKING:
    from rag_core.engines.identity import ModelInfo
    from rag_core.engines.options import EngineOptions


@dataclasses.dataclass(kw_only=True)
class EngineArgs(PromptArgs):
    """Flags of such a stage."""

    engine: Literal["auto", "vllm", "transformers", "sentence-transformers", "server", "ray"] = flag(
        "what runs the teacher; ray starts what auto chooses in the workers of a Ray cluster", "auto", decides=False
    )
    num_workers: int = flag("ray: number of workers; each loads a copy of the teacher", 1, decides=False)
    gpus_per_worker: float | None = flag(
        "ray: GPUs per worker, 0.5 lets two share one (default: --tensor_parallel_size where there are GPUs, else 0)",
        None,
        decides=False,
    )
    ray_address: str | None = flag(
        "ray: address of the cluster, auto or ray://host:10001 (default: RAY_ADDRESS, else this machine)",
        None,
        decides=False,
    )
    server_url: str | None = flag(
        "server engine: address of vLLM's server or of TEI, as http://host:port", None, decides=False
    )
    concurrency: int = flag(
        "server engine: requests sent at once, each with up to --batch_size sequences", 64, decides=False
    )
    server_timeout: float = flag(
        "server engine: stop the run after so many seconds without an answer", 600, decides=False
    )
    vllm_runner: Literal["generate", "pooling"] = flag(
        "how vLLM scores with a reranker: generate is exact; pooling is faster, and must first agree with generate on "
        "20 pairs",
        "generate",
    )
    batch_size: int = flag(
        "most sequences in a batch or in a request to a server (vLLM makes its own; --batch_tokens alone bounds those "
        "of an LLM in transformers on a GPU)",
        32,
        decides=False,
        least=1,
    )
    batch_tokens: int = flag(
        "transformers engine: most tokens in a batch, padding included", 16384, decides=False, least=1
    )
    max_length: int = flag(
        "tokens that the teacher reads: a reranker of prompt, query and passage together, an embedder of one text",
        4096,
        least=1,
    )
    instruction: str | None = flag(
        "the task that an LLM is told (default: the data set's where it is known, else the model's, else web search)",
        None,
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = flag("precision of the teacher", "auto")
    gpu_memory_utilization: float = flag(
        "vLLM: share of the GPU memory that it takes", 0.9, decides=False, least=0, most=1
    )
    tensor_parallel_size: int = flag("vLLM: GPUs that share one copy of the teacher", 1, decides=False, least=1)
    quantization: str | None = flag(
        "vLLM: load the teacher with fewer bits, e.g. fp8; it must first rank 20 pairs as the unquantised teacher does",
        None,
    )
    reference: str | None = flag(
        "the model that a quantised teacher (AWQ, GPTQ, ...) was made from; the two are compared on 20 pairs first; "
        "none skips that",
        None,
        decides=False,
    )


def engine_options(args: EngineArgs, model: ModelInfo) -> EngineOptions:
    """Return how a model is to be run."""
    from rag_core.engines.options import EngineOptions, RayOptions, ServerOptions, TransformersOptions, VllmOptions

    return EngineOptions(
        model=model,
        instruction=args.instruction,
        max_length=args.max_length,
        batch_size=args.batch_size,
        dtype=args.dtype,
        reference=args.reference,
        transformers=TransformersOptions(args.batch_tokens),
        vllm=VllmOptions(args.vllm_runner, args.quantization, args.gpu_memory_utilization, args.tensor_parallel_size),
        server=ServerOptions(args.server_url, args.concurrency, args.server_timeout) if args.server_url else None,
        ray=RayOptions(args.num_workers, args.gpus_per_worker, args.ray_address) if args.engine == "ray" else None,
    )


def check_engine(args: EngineArgs) -> None:
    """Check that the flags of the engine go together.

    Raises:
        UsageError: they do not.
    """
    _check_workers(args)
    _check_server(args)


def _check_workers(args: EngineArgs) -> None:
    gpus = args.gpus_per_worker
    if args.engine != "ray" and (args.num_workers, gpus, args.ray_address) != (1, None, None):
        raise UsageError(
            "--num_workers, --gpus_per_worker and --ray_address are for --engine ray", "Pass --engine ray as well"
        )
    if args.num_workers < 1:
        raise UsageError(f"--num_workers is {args.num_workers}", "Pass --num_workers 1 or more")
    if gpus is not None and (gpus < 0 or (gpus > 1 and gpus % 1)):
        raise UsageError(f"--gpus_per_worker is {gpus:g}", "Pass a fraction of one GPU, such as 0.5, or a whole number")
    if gpus is not None and args.tensor_parallel_size > max(gpus, 1):
        raise UsageError(
            f"--tensor_parallel_size {args.tensor_parallel_size} is more than --gpus_per_worker {gpus:g}",
            f"A worker holds a whole copy of the teacher: pass --gpus_per_worker {args.tensor_parallel_size}",
        )


def _check_server(args: EngineArgs) -> None:
    from rag_core.engines.options import check_server_flags

    check_server_flags(args.engine, args.server_url, args.dtype)
    if args.server_url is None:
        return
    if args.reference not in (None, "none"):
        raise UsageError(
            "--reference cannot be loaded on a server", "Pass --reference none, and compare with --parity 64"
        )
    if args.concurrency < 1 or args.server_timeout <= 0:
        raise UsageError(
            "--concurrency and --server_timeout must be above 0",
            "Pass --concurrency 1 or more, and --server_timeout above 0",
        )
