"""Requests to an HTTP server with a model: several at once, and sent again while it is away or busy."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar

import httpx2
import tenacity

from rag_core.base.errors import EngineError
from rag_core.engines.options import ServerOptions
from rag_core.engines.protocols import Pair

API_KEY = "RAG_SERVER_API_KEY"  # environment variable

_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=30)
_CONNECT_SECONDS = 10
_SECONDS_BETWEEN_NOTES = 60

Row = TypeVar("Row", list[int], str, Pair)
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Server:
    """vLLM's OpenAI-compatible server, or text-embeddings-inference (TEI).

    Attributes:
        url: where it is.
        is_tei: which of the two it is.
        model: what it calls the model.
        reads: tokens of a prompt or text, at most; `None` where it does not say.
    """

    def __init__(self, wanted: str, options: ServerOptions, batch_size: int) -> None:
        """Ask the server which model it has.

        Args:
            wanted: name of the model.
            batch_size: rows in a request, at most.

        Raises:
            EngineError: it does not answer, or does not have the model.
        """
        self.url = options.url.rstrip("/").removesuffix("/v1")
        self._key = os.environ.get(API_KEY)
        self._concurrency, self._timeout, self._batch_size = options.concurrency, options.timeout, batch_size
        self._client = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(self._timeout / 2, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=self._concurrency),
        )
        weakref.finalize(self, self._client.close)
        self._given_up = threading.Event()
        self._told = -float("inf")
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_temporary),
            wait=self._wait,
            stop=tenacity.stop_any(
                tenacity.stop_after_delay(self._timeout), tenacity.stop_when_event_set(self._given_up)
            ),
            sleep=tenacity.sleep_using_event(self._given_up),
            before_sleep=self._tell,
            reraise=True,
        )
        info = self.ask("/info", None, _read_tei_info)
        self.is_tei = info is not None
        if info:
            self.model, self.reads, most_rows = info
            self._batch_size = min(self._batch_size, most_rows)
        else:
            reads = self.ask(
                "/v1/models", None, lambda all_: {it["id"]: it.get("max_model_len") for it in all_["data"]}
            )
            self.model = self._choose(list(reads), wanted)
            self.reads = reads[self.model]
        logger.info("server: %s has %s", self.url, self.model)

    def ask(self, path: str, body: dict[str, Any] | None, read: Callable[[Any], Value]) -> Value:
        """Send a request, again if need be; return what `read` finds in the answer. Without a body it is a GET.

        Raises:
            EngineError: the server refuses, stays away, or answers in another form than `read` expects.
        """
        try:
            answer = self._retrying(self._send, path, body)
        except httpx2.HTTPError as error:
            if _is_temporary(error):
                raise EngineError(
                    f"the server {self.url} gave no answer for {self._timeout:g} seconds ({self._reason(error)})",
                    "Check that it runs, then run the same command again to go on where it stopped. If it is only "
                    "slow, lower --concurrency or --batch_size, or raise --server_timeout",
                ) from error
            remedy = "Check --server_url and --teacher, and what the server was started with"
            if isinstance(error, httpx2.HTTPStatusError) and error.response.status_code in (401, 403):
                remedy = f"Put the server's key into the environment variable {API_KEY}"
            raise EngineError(f"the server {self.url} refuses {path} ({self._reason(error)})", remedy) from error
        try:
            return read(answer)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise EngineError(
                f"the server {self.url} answers {path} in a form that is not understood ({str(answer)[:100]!r})",
                "Check --server_url; it must be vLLM's server of the version that the extra vllm names, or TEI",
            ) from error

    def compute(
        self, chunks: Iterable[tuple[int, tuple[Sequence[Row], int]]], ask: Callable[[Sequence[Row]], Sequence[Value]]
    ) -> Iterator[tuple[int, list[Value], int]]:
        """Ask for the values of all rows, `concurrency` requests at a time, over the ends of chunks.

        Args:
            chunks: number, rows, and a count that is passed on with their values.

        Raises:
            EngineError: as `ask` raises.
        """
        waiting: deque[tuple[int, list[Future[Sequence[Value]]], int]] = deque()

        def finish() -> tuple[int, list[Value], int]:
            number, parts, count = waiting.popleft()
            return number, [value for part in parts for value in part.result()], count

        threads = ThreadPoolExecutor(self._concurrency)
        try:
            for number, (rows, count) in chunks:
                starts = range(0, len(rows), self._batch_size)
                parts = [threads.submit(ask, rows[start : start + self._batch_size]) for start in starts]
                waiting.append((number, parts, count))
                # The first can be waited for when those behind it are enough to keep the server busy.
                while sum(len(parts) for _, parts, _ in islice(waiting, 1, None)) >= self._concurrency:
                    yield finish()
            while waiting:
                yield finish()
        except BaseException:
            self._given_up.set()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _send(self, path: str, body: dict[str, Any] | None) -> Any:
        response = self._client.request("GET" if body is None else "POST", path, json=body)
        if path == "/info" and response.status_code in (403, 404, 405):
            return None
        response.raise_for_status()
        try:
            return response.json()
        except ValueError:
            return response.text  # which `read` will not understand

    def _choose(self, names: list[str], teacher: str) -> str:
        if teacher in names or len(names) == 1:
            return teacher if teacher in names else names[0]
        raise EngineError(
            f"the server {self.url} has {', '.join(names) or 'no model'}, and not {teacher}",
            "Pass one of its models as --teacher, or start it with --served-model-name",
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        return min(_retry_after(_failure(state)), self._timeout) + _BACKOFF(state)

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if time.monotonic() - self._told > _SECONDS_BETWEEN_NOTES:
            self._told = time.monotonic()
            logger.warning(
                "the server %s does not answer (%s); trying again for up to %g seconds",
                self.url,
                self._reason(_failure(state)),
                self._timeout,
            )

    def _reason(self, error: BaseException) -> str:
        if not isinstance(error, httpx2.HTTPStatusError):
            return str(error) or type(error).__name__
        said = " ".join(error.response.text.split())[:200]
        return f"HTTP {error.response.status_code}: {said.replace(self._key, '***') if self._key else said}"


def _read_tei_info(answer: Any) -> tuple[str, int, int] | None:
    if not isinstance(answer, dict) or "model_id" not in answer:
        return None
    return answer["model_id"], answer["max_input_length"], answer["max_client_batch_size"]


def _failure(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None  # only failures are tried again
    return error


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, httpx2.HTTPStatusError):
        status = error.response.status_code
        return status == 429 or (status >= 500 and status != 501)
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _retry_after(error: BaseException) -> float:
    """Return the seconds that the server asked to be left alone, given as a number or as a date."""
    value = error.response.headers.get("Retry-After", "") if isinstance(error, httpx2.HTTPStatusError) else ""
    with suppress(ValueError):
        return float(value)
    with suppress(ValueError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return 0.0
