"""A way to one far end over plain HTTP, on any event loop: each call within its time, whatever comes back."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

from orchestra.dialects.far_calls import FarReply, Silence

if TYPE_CHECKING:
    import httpx

BODY_BYTES_MAX = 4_096
"""Of an answer so much is read: it is a word."""


class HttpLine:
    """
    A `far_calls.FarLine`; entered before use. Each call has a connection of its own, since many small servers speak HTTP/1.0.

    Args:
        host: An address or a name, without port.
        headers: Sent with each call.
        call_ms: How long a call may take in all.
    """

    def __init__(
        self, host: str, port: int, headers: tuple[tuple[str, str], ...], call_ms: int
    ) -> None:
        self._url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._headers = [*headers, ("connection", "close")]
        self._call_s = call_ms / 1_000
        self._client: httpx.AsyncClient | None = None

    async def __aenter__(self) -> HttpLine:
        import httpx  # a server without member containers needs no client

        self._client = httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            timeout=self._call_s,
            limits=httpx.Limits(max_keepalive_connections=0),
            # The far end is a neighbour: no proxy of the environment stands between.
            trust_env=False,
            # Every call is plain HTTP. A context that trusts nobody is made at once; to load all that may be takes 40 ms and a megabyte.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.__aexit__(kind, error, trace)

    async def call(self, target: str) -> FarReply | Silence:
        """As `far_calls.FarLine.call`."""
        import httpx

        if self._client is None:
            return Silence.NOBODY
        with anyio.move_on_after(self._call_s):
            try:
                return await _read(self._client, target)
            except httpx.ConnectError:
                return Silence.NOBODY
            except (httpx.HTTPError, httpx.InvalidURL):
                return Silence.UNANSWERED
        return Silence.UNANSWERED


async def _read(client: httpx.AsyncClient, target: str) -> FarReply:
    async with client.stream("GET", target) as reply:
        body = b""
        async for piece in reply.aiter_raw():
            # The rest is passed over, not left: a broken-off iteration is closed by nobody. The call's time bounds it.
            body += piece[: BODY_BYTES_MAX - len(body)]
        return FarReply(reply.status_code, body)
