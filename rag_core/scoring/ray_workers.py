"""A teacher in several workers of a Ray cluster: on the GPUs of one machine or of many.

The workers are plain actors, with two chunks each in work or in line. Ray Data's `map_batches` would have its input
read by tasks of its own, and read again where a node is lost; chunks come from a generator of the driver, which cuts
them as the others are finished, and cannot be asked twice. So the driver hands them out, and Ray keeps what is out
until it is back.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rag_core.base.errors import EngineError, PipelineError
from rag_core.base.outside_text import quoted
from rag_core.engines.identity import ModelInfo, describe_model
from rag_core.engines.loading import choose_engine, load_model
from rag_core.engines.options import EngineName, EngineOptions, RayOptions
from rag_core.engines.precision import Dtype, resolve_dtype
from rag_core.engines.protocols import Floats, Pair, PairScorer, Role, ScoreUnit, TextEncoder

# Ray reads these when it is imported; what the user has set stays.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent home
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",  # stdout is for results, not for what Ray says of workers that it starts again
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # nor stderr for the tracebacks of the workers that did not raise first
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it Ray warns of a default that it will change
}

_CALLS_A_WORKER = 2  # one is computed, the next has arrived meanwhile
# Of a worker that dies. Its chunks follow it however often Ray asks for them: while a lost machine is not known to be
# lost, that is several times a second.
_RESTARTS = 4

logger = logging.getLogger(__name__)


def settle(options: EngineOptions, wanted: RayOptions) -> tuple[EngineName, str, EngineOptions]:
    """Return the engine that a worker chooses, the reason, and options with its precision and number of GPUs.

    The machine that gives the work out may have no GPU; and all workers are to compute the same.

    Raises:
        EngineError: Ray is not installed, the cluster is out of reach or too small, or a worker lacks the model.
    """
    ray = _connect(wanted)
    there = ray.cluster_resources()
    gpus = wanted.gpus_per_worker
    if gpus is None:
        gpus = options.vllm.tensor_parallel_size if there.get("GPU") else 0
    for name, needed in {"CPU": wanted.num_workers, "GPU": wanted.num_workers * gpus}.items():
        if there.get(name, 0) < needed:
            raise EngineError(
                f"{wanted.num_workers} workers need {needed:g} {name}s, and the Ray cluster has {there.get(name, 0):g}",
                "Lower --num_workers or --gpus_per_worker, or add machines to the cluster",
            )
    wanted = replace(wanted, gpus_per_worker=gpus)
    choose = ray.remote(num_cpus=1, num_gpus=gpus)(_choose)
    with _errors_of_workers(ray):
        engine, reason, dtype = ray.get(choose.remote(_for_workers(options, gpus), gpus))
    logger.info("Ray: %d workers with %g GPUs each", wanted.num_workers, gpus)
    return engine, reason, replace(options, dtype=dtype, ray=replace(wanted, gpus_per_worker=gpus))


def _choose(options: EngineOptions, gpus: float) -> tuple[EngineName, str, Dtype]:
    """Choose engine and precision, in a worker."""
    _see_gpus(gpus)
    _check_folder(options.model)
    return *choose_engine(options.model, "auto"), resolve_dtype(options.dtype)


class Worker:
    """What an actor does. It loads the model at the first call, also when Ray has started it again."""

    def __init__(self, engine: EngineName, options: EngineOptions, canary_pairs: Sequence[Pair], gpus: float) -> None:
        _see_gpus(gpus)
        self._engine, self._options, self._canary_pairs = engine, options, canary_pairs

    def describe(self) -> dict[str, Any]:
        """Load the model, and return its attributes as of the protocols.

        Raises:
            EngineError: as `load_model`, or the model is not the same as the driver's.
        """
        names = ("score_unit", "truncated", "dimensions")
        return {name: getattr(self._model, name) for name in names if hasattr(self._model, name)}

    def compute(self, number: int, rows: Sequence[Any], role: Role | None) -> tuple[int, Floats, int]:
        """Score pairs, or embed texts of a role; return the chunk's number, its values and how many rows were cut.

        Raises:
            EngineError: as the engine raises.
        """
        model = self._model
        before = model.truncated or 0
        if isinstance(model, PairScorer):
            values = model.score(rows)
        else:
            assert role is not None
            values = model.encode(rows, role)
        return number, values, (model.truncated or 0) - before

    @cached_property
    def _model(self) -> PairScorer | TextEncoder:
        model = self._options.model
        _check_folder(model)
        if describe_model(model.name).identity != model.identity:
            raise EngineError(
                f"the worker on {platform.node()} has another version of {model.name}",
                "Put the same model on all machines",
            )
        return load_model(self._engine, self._options, self._canary_pairs)


class _RayModel:
    """A model in workers.

    Raises:
        EngineError: as `settle`, or as the engine raises in a worker.
    """

    def __init__(
        self, engine: EngineName, options: EngineOptions, wanted: RayOptions, canary_pairs: Sequence[Pair]
    ) -> None:
        self._ray = _connect(wanted)
        gpus = wanted.gpus_per_worker or 0
        actor = self._ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=_RESTARTS, max_task_retries=-1)(Worker)
        arguments = engine, _for_workers(options, gpus), canary_pairs, gpus
        self._workers = [actor.remote(*arguments) for _ in range(wanted.num_workers)]
        with _errors_of_workers(self._ray):
            described, *_ = self._ray.get([worker.describe.remote() for worker in self._workers])
        self.score_unit: ScoreUnit = described["score_unit"]
        self.truncated: int | None = described["truncated"]
        self.dimensions: int = described.get("dimensions", 1)

    def close(self) -> None:
        """Stop the workers."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _compute(self, chunks: Iterable[Sequence[Any]], role: Role | None) -> Iterator[tuple[int, Floats]]:
        from ray.util import ActorPool

        pool = ActorPool(self._workers * _CALLS_A_WORKER)
        for numbered in enumerate(chunks):
            if not pool.has_free():
                yield self._next(pool)
            pool.submit(lambda worker, chunk: worker.compute.remote(*chunk, role), numbered)
        while pool.has_next():
            yield self._next(pool)

    def _next(self, pool: Any) -> tuple[int, Floats]:
        with _errors_of_workers(self._ray):
            number, values, truncated = pool.get_next_unordered()
        if self.truncated is not None:
            self.truncated += truncated
        return number, values


class RayScorer(_RayModel):
    """Pairs, scored by the workers."""

    def score(self, pairs: Sequence[Pair]) -> Floats:
        """Score (query, passage) pairs in one worker; shape (pairs,)."""
        ((_, scores),) = self.score_chunks([pairs])
        return scores

    def score_chunks(self, chunks: Iterable[Sequence[Pair]]) -> Iterator[tuple[int, Floats]]:
        """Score chunks of pairs; yield (number of the chunk, scores), in the order in which they are finished.

        Raises:
            EngineError: as the engine raises in a worker, or a chunk's worker died time after time.
        """
        return self._compute(chunks, None)


class RayEncoder(_RayModel):
    """Texts, embedded by the workers."""

    def encode(self, texts: Sequence[str], role: Role) -> Floats:
        """Embed texts in one worker; shape (texts, dimensions)."""
        ((_, vectors),) = self.encode_chunks([texts], role)
        return vectors

    def encode_chunks(self, chunks: Iterable[Sequence[str]], role: Role) -> Iterator[tuple[int, Floats]]:
        """Embed chunks of texts; yield (number of the chunk, vectors), in the order in which they are finished.

        Raises:
            EngineError: as `RayScorer.score_chunks`.
        """
        return self._compute(chunks, role)


def _connect(wanted: RayOptions) -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise EngineError("Ray is not installed", 'Run: pip install "rag-optimization[ray]"') from error
    if ray.is_initialized():
        return ray
    address = wanted.address or os.environ.get("RAY_ADDRESS") or "local"
    settings = {"num_cpus": wanted.num_workers, "include_dashboard": False} if address == "local" else {}
    try:
        _check_port(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise EngineError(
            f"no Ray cluster at {address} ({quoted(str(error), 200)})",
            "Check that it runs, --ray_address, its token (RAY_AUTH_MODE), and that Python and Ray are of its versions",
        ) from error
    return ray


def _check_port(address: str) -> None:
    """Check that something listens at host:port, where Ray would try for minutes.

    Raises:
        OSError, ValueError: nothing does, or that is no address.
    """
    host, _, port = address.rpartition(":")
    if host and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _for_workers(options: EngineOptions, gpus: float) -> EngineOptions:
    """Return the options of one of the workers, which has a working directory of its own, and a part of a GPU."""
    return replace(
        options,
        model=_for_another_folder(options.model),
        reference=options.reference and _absolute(options.reference),
        vllm=replace(options.vllm, gpu_memory_utilization=options.vllm.gpu_memory_utilization * min(gpus or 1, 1)),
        ray=None,
    )


def _for_another_folder(model: ModelInfo) -> ModelInfo:
    """Return a description that holds in any working directory, with the identity that is found here."""
    absolute = replace(model, name=_absolute(model.name))
    absolute.__dict__["identity"] = {**model.identity, "name": absolute.name}
    return absolute


def _absolute(model: str) -> str:
    return str(Path(model).resolve()) if Path(model).is_dir() else model


def _check_folder(model: ModelInfo) -> None:
    if "sha256" in model.identity and not Path(model.name).is_dir():
        raise EngineError(
            f"the worker on {platform.node()} has no folder {model.name}",
            "Put the model into the same place on all machines, or pass a name on the hub",
        )


def _see_gpus(gpus: float) -> None:
    if not gpus:  # Ray limits only those who have asked for some
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@contextmanager
def _errors_of_workers(ray: Any) -> Iterator[None]:
    """Raise what a worker raised as it was there."""
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, PipelineError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"a worker was lost, after up to {_RESTARTS} new starts ({quoted(str(error), 300)})",
            "Check the memory of its machine, and that this package is installed there; Ray's logs are in "
            "/tmp/ray/session_latest/logs. Run the same command again to go on",
        ) from error
