"""How a model is to be run: what every engine needs, and what each needs besides."""

from __future__ import annotations

import dataclasses
from typing import Literal
from urllib.parse import urlsplit

from rag_core.base.errors import UsageError
from rag_core.base.flags import setting
from rag_core.engines.identity import ModelInfo
from rag_core.engines.precision import Dtype

EngineName = Literal["vllm", "transformers", "sentence-transformers", "server", "exported"]
EngineChoice = EngineName | Literal["auto"]


@dataclasses.dataclass(frozen=True)
class TransformersOptions:
    """Options of the transformers engine.

    Attributes:
        batch_tokens: tokens in a batch at most, with the padding.
    """

    batch_tokens: int = setting(16384, decides=False)


@dataclasses.dataclass(frozen=True)
class VllmOptions:
    """Options of the vLLM engine.

    Attributes:
        vllm_runner: for a reranker: "generate" is exact by construction; "pooling" is faster, and is compared with it
            first.
        quantization: vLLM's name of a way to load the weights with fewer bits, e.g. "fp8"; `None` as they were saved.
        gpu_memory_utilization, tensor_parallel_size: as in vLLM.
    """

    vllm_runner: Literal["generate", "pooling"] = setting("generate")
    quantization: str | None = setting(None)
    gpu_memory_utilization: float = setting(0.9, decides=False)
    tensor_parallel_size: int = setting(1, decides=False)


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """Options of the server engine.

    Attributes:
        url: http://host:port of vLLM's server or of text-embeddings-inference.
        concurrency: requests at once.
        timeout: seconds without an answer after which the run stops.
    """

    url: str = setting(decides=False)
    concurrency: int = setting(64, decides=False)
    timeout: float = setting(600.0, decides=False)


@dataclasses.dataclass(frozen=True)
class RayOptions:
    """Workers in a Ray cluster, each with a copy of the model.

    Attributes:
        num_workers: how many.
        gpus_per_worker: of each, a fraction where several share a GPU; `None`, where the cluster has GPUs, is what a
            copy of the model needs, elsewhere 0.
        address: of the cluster; `None` is what the environment variable RAY_ADDRESS says, or this machine alone.
    """

    num_workers: int = setting(1, decides=False)
    gpus_per_worker: float | None = setting(None, decides=False)
    address: str | None = setting(None, decides=False)


@dataclasses.dataclass(frozen=True)
class EngineOptions:
    """What every engine needs, and the options of those that need more.

    Attributes:
        model: the model, described.
        instruction: the task, as told to a model that takes one (`ModelInfo.takes_instruction`); `None` is the model's
            own, or the default.
        max_length: tokens of a prompt, with the passage or text in it.
        batch_size: sequences at once at most, or in one request to a server; vLLM schedules by itself.
        dtype: "auto" is what `precision.resolve_dtype` makes of it; a server has its own.
        reference: name of the model that a quantised one is compared with first; `None` is itself as it was saved,
            "none" skips that.
        server: where the model runs on one.
        ray: the engine runs in these workers, not in this process.
    """

    model: ModelInfo = setting(decides=False)  # its identity stands in the recipe
    instruction: str | None = setting(None)
    max_length: int = setting(4096)
    batch_size: int = setting(32, decides=False)
    dtype: Literal["auto"] | Dtype = setting("auto")
    reference: str | None = setting(None, decides=False)
    transformers: TransformersOptions = setting(TransformersOptions())
    vllm: VllmOptions = setting(VllmOptions())
    server: ServerOptions | None = setting(None, decides=False)
    ray: RayOptions | None = setting(None, decides=False)


def check_server_flags(engine: str, server_url: str | None, dtype: str) -> None:
    """Check that the flags about a server fit together.

    Raises:
        UsageError: they do not.
    """
    if (engine == "server") != (server_url is not None):
        raise UsageError("--engine server and --server_url belong together", "Pass both or neither")
    if server_url is None:
        return
    try:
        url = urlsplit(server_url)
        usable = url.scheme in ("http", "https") and url.hostname and not url.username and url.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(
            "--server_url is not of the form http://host:port",
            "Pass it like this; a key goes into the environment variable RAG_SERVER_API_KEY",
        )
    if dtype != "auto":
        raise UsageError(f"--dtype {dtype} has no effect on a server", "Start the server with it")
