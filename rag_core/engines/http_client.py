"""HTTP requests that end: each has a bound on its seconds and on its bytes, whatever the server does."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping
from contextlib import aclosing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx2

from rag_core.base.outside_text import quoted

_CONNECT_SECONDS = 10
_MOST_SAID = 2**16  # bytes of a refusal, of which a sentence shows less


class RefusalError(Exception):
    """An answer with another status than 2xx."""

    def __init__(self, status: int, headers: Mapping[str, str], said: bytes) -> None:
        super().__init__(status)
        self.status, self.headers, self.said = status, headers, said

    def __str__(self) -> str:
        said = quoted(self.said.decode("utf-8", "replace"), 200)
        return f"HTTP {self.status}: {said}" if said else f"HTTP {self.status}"


class TooLongError(Exception):
    """An answer of more bytes than can belong to the request."""


class HttpClient:
    """Sends requests to one server, from any thread, and follows no redirect, which would take the key elsewhere.

    They run in an event loop on a thread of its own, since there a request can be ended at any point: a timeout of a
    socket begins anew with every byte. Cookies are not kept, or one of a load balancer would send all requests to one
    replica.
    """

    def __init__(self, url: str, headers: Mapping[str, str], connections: int) -> None:
        """Prepare the client; nothing is sent.

        Args:
            connections: those that are kept open between requests.

        Raises:
            httpx2.InvalidURL: the URL is none.
        """
        client = httpx2.AsyncClient(
            base_url=url,
            headers=headers,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx2.Timeout(None, connect=_CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=connections),
        )
        self._client, self._loop = client, asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop, client), daemon=True).start()
        weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def request(self, path: str, body: Mapping[str, Any] | None, *, seconds: float, most_bytes: int) -> bytes:
        """Return the body of an answer, unpacked. What is sent is JSON; without it this is a GET.

        Raises:
            RefusalError: the status is not 2xx.
            TooLongError: the body has more bytes.
            httpx2.HTTPError: there is no whole answer within the seconds, or it is not HTTP.
        """
        request = self._client.build_request("GET" if body is None else "POST", path, json=body)
        return asyncio.run_coroutine_threadsafe(self._send(request, seconds, most_bytes), self._loop).result()

    def end_requests(self) -> None:
        """End the requests that are under way: `request` raises `concurrent.futures.CancelledError`."""
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(self._loop)])

    async def _send(self, request: httpx2.Request, seconds: float, most_bytes: int) -> bytes:
        found = bytearray()
        try:
            async with asyncio.timeout(seconds), aclosing(await self._client.send(request, stream=True)) as answer:
                most = most_bytes if answer.is_success else _MOST_SAID
                async with aclosing(answer.aiter_bytes()) as parts:
                    async for part in parts:
                        found += part
                        if len(found) > most:
                            break
        except TimeoutError as error:
            raise httpx2.ReadTimeout(f"no whole answer in {seconds:.3g} seconds") from error
        if not answer.is_success:
            raise RefusalError(answer.status_code, answer.headers, bytes(found))
        if len(found) > most_bytes:
            raise TooLongError(f"more than {most_bytes:,} bytes")
        return bytes(found)


def _run(loop: asyncio.AbstractEventLoop, client: httpx2.AsyncClient) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()
        runner.run(client.aclose())
