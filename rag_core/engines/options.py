"""How a teacher is to be run: the settings that every engine takes, from the flags of `generate_logits`."""

from __future__ import annotations

import dataclasses
from typing import Literal

EngineName = Literal["vllm", "transformers", "sentence-transformers", "server", "exported"]
EngineChoice = EngineName | Literal["auto"]


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """Workers in a Ray cluster, each with a copy of the model.

    Attributes:
        num_workers: how many.
        gpus_per_worker: of each, a fraction where several share a GPU; `None`, where the cluster has GPUs, is what a
            copy of the model needs, elsewhere 0.
        address: of the cluster; `None` is what the environment variable RAY_ADDRESS says, or this machine alone.
    """

    num_workers: int = 1
    gpus_per_worker: float | None = None
    address: str | None = None


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """Settings of an engine.

    Attributes:
        model: hub name or local folder.
        instruction: the task, as told to an LLM reranker or an embedder that takes one (`identity.takes_instruction`;
            other models are told nothing); `None` is the model's own, or the default.
        max_length: tokens of a prompt, with the passage or text in it.
        batch_size: sequences at once, at most (transformers, sentence-transformers), or in a request to a server; vLLM
            schedules by itself.
        batch_tokens: tokens at once, with the padding, at most (transformers).
        dtype: "auto" is what `precision.resolve_dtype` makes of it; a server has its own.
        vllm_runner: of a reranker: "generate" is exact by construction; "pooling" is faster, compared with it first.
        quantization: vLLM's name of a way to load the weights with fewer bits, e.g. "fp8"; `None` as they were saved.
        reference: of a quantised model, the one that it is compared with first: by default itself as it was saved.
        gpu_memory_utilization, tensor_parallel_size: as in vLLM.
        ray: the engine runs in these workers, not in this process.
        server_url: of the server that runs the teacher.
        concurrency: requests to the server at once.
        server_timeout: seconds without an answer after which the server is given up.
    """

    model: str
    instruction: str | None = None
    max_length: int = 4096
    batch_size: int = 32
    batch_tokens: int = 16384
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    vllm_runner: Literal["generate", "pooling"] = "generate"
    quantization: str | None = None
    reference: str | None = None
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    ray: RayOptions | None = None
    server_url: str | None = None
    concurrency: int = 64
    server_timeout: float = 600
