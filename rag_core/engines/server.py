"""Requests to an HTTP server with a model: several at once, and sent again while it is away or busy."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any, TypeVar

import httpx2
import tenacity

from rag_core.base.errors import EngineError, UsageError
from rag_core.base.outside_text import quoted, reason
from rag_core.engines.http_client import HttpClient, RefusalError, TooLongError
from rag_core.engines.options import ServerOptions
from rag_core.engines.protocols import Pair
from rag_core.engines.server_answers import INFO, MODELS, Endpoint

API_KEY = "RAG_SERVER_API_KEY"  # environment variable

_BACKOFF = tenacity.wait_random_exponential(multiplier=0.5, max=30)
_LAST_BEGINNING = 0.9  # of the time for a request, so that the last attempt has some left
_SECONDS_BETWEEN_NOTES = 60

Row = TypeVar("Row", list[int], str, Pair)
Value = TypeVar("Value")
Found = TypeVar("Found")

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
        self._concurrency, self._timeout, self._batch_size = options.concurrency, options.timeout, batch_size
        try:
            self._client = HttpClient(self.url, _authorization(), self._concurrency)
        except httpx2.InvalidURL as error:
            raise UsageError(f"--server_url is no address ({quoted(str(error))})", "Pass http://host:port") from error
        self._given_up = threading.Event()
        self._told = -float("inf")
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_temporary),
            wait=self._wait,
            stop=tenacity.stop_any(
                tenacity.stop_before_delay(_LAST_BEGINNING * self._timeout),
                tenacity.stop_when_event_set(self._given_up),
            ),
            sleep=self._sleep,
            before_sleep=self._tell,
            reraise=True,
        )
        self.model: str
        self.reads: int | None
        info = self.ask(INFO)
        self.is_tei = info is not None
        if info:
            self.model, self.reads = info.model_id, info.max_input_length
            self._batch_size = min(self._batch_size, info.max_client_batch_size)
        else:
            reads = self.ask(MODELS)
            self.model = self._choose(list(reads), wanted)
            self.reads = reads[self.model]
        logger.info("server: %s has %s", self.url, quoted(self.model))

    def ask(self, endpoint: Endpoint[Found], body: dict[str, Any] | None = None, rows: int = 1) -> Found:
        """Send a request, again if need be; return what the answer has for so many rows. Without a body it is a GET.

        Raises:
            EngineError: the server refuses, stays away, or answers in another form, or at greater length.
        """
        try:
            answer = self._retrying(self._send, endpoint, body, rows, time.monotonic() + self._timeout)
        except (RefusalError, httpx2.HTTPError) as error:
            if _is_temporary(error):
                raise EngineError(
                    f"the server {self.url} gave no answer for {self._timeout:g} seconds ({_reason(error)})",
                    "Check that it runs, then run the same command again to go on where it stopped. If it is only "
                    "slow, lower --concurrency or --batch_size, or raise --server_timeout",
                ) from error
            remedy = "Check --server_url and --teacher, and what the server was started with"
            if isinstance(error, RefusalError) and error.status in (401, 403):
                remedy = f"Put the server's key into the environment variable {API_KEY}"
            raise EngineError(f"the server {self.url} refuses {endpoint.path} ({_reason(error)})", remedy) from error
        except TooLongError as error:
            raise self._not_understood(endpoint, error) from error
        try:
            return endpoint.read(answer, rows)
        except ValueError as error:
            raise self._not_understood(endpoint, error) from error

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
            for part in wait(parts, return_when=FIRST_EXCEPTION).done:
                part.result()  # a failure is not waited for behind others
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
            threads.shutdown(wait=False, cancel_futures=True)
            self._client.end_requests()
            raise
        finally:
            threads.shutdown(cancel_futures=True)

    def _send(self, endpoint: Endpoint[Any], body: dict[str, Any] | None, rows: int, deadline: float) -> bytes:
        seconds = min(self._timeout / 2, deadline - time.monotonic())
        try:
            return self._client.request(endpoint.path, body, seconds=seconds, most_bytes=endpoint.most_bytes(rows))
        except RefusalError as refusal:
            if endpoint is INFO and refusal.status in (403, 404, 405):
                return b""  # as a server that is not TEI
            raise

    def _not_understood(self, endpoint: Endpoint[Any], error: Exception) -> EngineError:
        return EngineError(
            f"the server {self.url} answers {endpoint.path} in a form that is not understood ({error})",
            "Check --server_url; it must be vLLM's server of the version that the extra vllm names, or TEI",
        )

    def _choose(self, names: list[str], teacher: str) -> str:
        if teacher in names or len(names) == 1:
            return teacher if teacher in names else names[0]
        raise EngineError(
            f"the server {self.url} has {quoted(', '.join(names), 400) or 'no model'}, and not {teacher}",
            "Pass one of its models as --teacher, or start it with --served-model-name",
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        asked = _retry_after(_failure(state))
        left = self._timeout - (state.seconds_since_start or 0)
        # What is asked for beyond that cannot be waited for; it is taken as no wish.
        return (asked if 0 < asked < _LAST_BEGINNING * left else 0) + min(_BACKOFF(state), self._timeout / 10)

    def _sleep(self, seconds: float) -> None:
        if self._given_up.wait(seconds):
            raise CancelledError

    def _tell(self, state: tenacity.RetryCallState) -> None:
        if time.monotonic() - self._told > _SECONDS_BETWEEN_NOTES:
            self._told = time.monotonic()
            logger.warning(
                "the server %s does not answer (%s); trying again for up to %g seconds",
                self.url,
                _reason(_failure(state)),
                self._timeout,
            )


def _authorization() -> dict[str, str]:
    """Return the header with the key; a header is ASCII.

    Raises:
        EngineError: the key cannot stand in one.
    """
    key = os.environ.get(API_KEY)
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise EngineError(
            f"{API_KEY} has characters that no key has (a line end, white space around it, or others than ASCII)",
            "Set it again",
        )
    return {"Authorization": f"Bearer {key}"}


def _reason(error: BaseException) -> str:
    if isinstance(error, RefusalError):
        return str(error)
    system_error = _system_error(error) if isinstance(error, httpx2.ConnectError) else None
    return system_error or reason(error)


def _system_error(error: BaseException | None) -> str | None:
    """Return what the system said of a connection, of the first where several addresses were tried."""
    while error is not None:
        if isinstance(error, socket.gaierror | ssl.SSLError):
            return error.strerror
        if isinstance(error, OSError) and error.errno:
            return os.strerror(error.errno)
        inner = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else None
        error = inner or error.__cause__ or error.__context__
    return None


def _failure(state: tenacity.RetryCallState) -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    assert error is not None  # only failures are tried again
    return error


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, RefusalError):
        return error.status == 429 or (error.status >= 500 and error.status != 501)
    return isinstance(error, httpx2.TransportError) and not isinstance(error, httpx2.UnsupportedProtocol)


def _retry_after(error: BaseException) -> float:
    """Return the seconds that the server asked to be left alone, given as a number or as a date."""
    value = error.headers.get("Retry-After", "") if isinstance(error, RefusalError) else ""
    with suppress(ValueError):
        return float(value)
    with suppress(ValueError, OverflowError):
        return parsedate_to_datetime(value).timestamp() - time.time()
    return 0.0
