"""
The HTTP client's end of the native dialect. The one file that names the HTTP library, so that another can take its place.

Runs on asyncio and on trio.
"""

from __future__ import annotations

import contextlib
import ssl
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from orchestra.dialects.native_calls import WireCall
from orchestra.dialects.native_problems import read_problem
from orchestra.dialects.native_pushes import EventReader
from orchestra.dialects.native_table import BY_CLASS, EVENT_STREAM, WATCH_BY_CLASS
from orchestra.dialects.wire import PING_S
from orchestra.errors import Malformed, OrchestraError, PeerClosed, Unavailable
from orchestra.ports import Push, Watch
from orchestra.transports.remote import ANSWER_S, CONNECT_S, RemoteAsker, told, unreachable

if TYPE_CHECKING:
    import httpx

CONNECTIONS_MAX = 512
"""Questions and watches under way at once; more wait for a free connection."""

KEPT_MAX = 64
KEPT_S = 30.0
"""Idle connections that are kept, and for how long: less than servers wait, so that both ends never close at once."""

SILENCE_S = 3 * PING_S
"""A stream that says nothing for so long is dead: three of its pings are missing."""


class HttpAsker(RemoteAsker):
    """
    A `ports.Asker` over HTTP.

    Args:
        client: Open connections, entered and left by whoever made it.
        url: Where the orchestrator is, without a slash at the end.
    """

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def call(self, asked: Any, key: str = "") -> Any:
        """As `RemoteAsker.call`."""
        kind: type[Any] = asked.__class__
        operation = BY_CLASS.get(kind)
        if operation is None:
            raise Malformed(f"{type(asked).__name__} can not be asked over a network")
        call = operation.call(asked)
        response = await self._send(call, key)
        if not response.is_success:
            raise read_problem(response.status_code, response.content)
        try:
            return operation.output.read(response.headers, response.content)
        except Malformed as error:
            raise Unavailable(f"the answer can not be read: {error}") from None

    async def _send(self, call: WireCall, key: str) -> httpx.Response:
        import httpx

        headers: dict[str, str] = {}
        if call.body is not None:
            headers["content-type"] = "application/json"
        if key:
            headers["idempotency-key"] = key
        target = self._url + call.target
        try:
            return await self._client.request(
                call.method, target, content=call.body, headers=headers
            )
        except httpx.TransportError as error:
            raise _lost(error, self._url) from error

    @asynccontextmanager
    async def watch(self, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        """As `ports.Asker.watch`; each watch has a connection of its own."""
        import httpx

        watchable = WATCH_BY_CLASS[type(watch)]
        call = watchable.input.call("GET", watchable.path, watch)
        request = self._client.build_request(
            "GET",
            self._url + call.target,
            headers={"accept": EVENT_STREAM},
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S),
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx.TransportError as error:
            raise _lost(error, self._url) from error
        try:
            if not response.is_success:
                raise read_problem(response.status_code, await _whole(response, self._url))
            pushes = _Pushes(response, self._url)
            try:
                yield pushes
            finally:
                await pushes.end()
        finally:
            await response.aclose()


async def _whole(response: httpx.Response, url: str) -> bytes:
    import httpx

    try:
        return await response.aread()
    except httpx.TransportError as error:
        raise _lost(error, url) from error


class _Pushes:
    """Iterates over the events of a stream. Ends when the server ends it, raises when the connection is lost."""

    def __init__(self, response: httpx.Response, url: str) -> None:
        self._response = response
        self._pieces = response.aiter_bytes()
        self._reader = EventReader()
        self._ready: deque[Push] = deque()
        self._url = url

    async def end(self) -> None:
        """
        Close the connection and let the library see that it is closed.

        It reads in generators inside generators; trio complains of any that is dropped unfinished.
        """
        import httpx

        with anyio.CancelScope(shield=True):
            await self._response.aclose()
            with contextlib.suppress(httpx.HTTPError, httpx.StreamError):
                async for _ in self._pieces:
                    pass

    def __aiter__(self) -> AsyncIterator[Push]:
        return self

    async def __anext__(self) -> Push:
        import httpx

        while not self._ready:
            try:
                piece = await anext(self._pieces)
                self._ready.extend(self._reader.feed(piece))
            except httpx.TransportError as error:
                raise _lost(error, self._url) from error
            except Malformed as error:
                raise PeerClosed(f"the stream can not be read: {error}") from None
        return self._ready.popleft()


def _lost(error: httpx.TransportError, url: str) -> OrchestraError:
    """Our word for what went wrong between the machines."""
    import httpx

    words = told(error)
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return unreachable(url, words)
    if isinstance(error, httpx.PoolTimeout):
        return Unavailable(f"{CONNECTIONS_MAX} questions to {url} are under way; nothing was sent")
    if isinstance(error, httpx.TimeoutException):
        return Unavailable(f"{url} did not answer in time; it is unknown whether it was done")
    return PeerClosed(f"the connection to {url} was lost: {words}")


@asynccontextmanager
async def open_http(url: str, *, token: str, context: ssl.SSLContext) -> AsyncGenerator[HttpAsker]:
    """
    An `Asker` for the orchestrator at an ``http`` or ``https`` address. Connects when it is first asked.

    Args:
        url: Without a slash at the end.
        token: Sent with each request; empty for none.
        context: Decides whom to trust; not used with ``http``.
    """
    import httpx

    headers = {"user-agent": "orchestra"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    client = httpx.AsyncClient(
        headers=headers,
        verify=context,
        timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
        limits=httpx.Limits(
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=KEPT_MAX,
            keepalive_expiry=KEPT_S,
        ),
        # A proxy in the environment would see the token of a machine next door.
        trust_env=False,
    )
    async with client:
        yield HttpAsker(client, url)
