"""
Serve an app over HTTP and websocket. The one file that starts an ASGI server; it runs on asyncio.

The server library is imported when `serve` is called, so that importing orchestra stays cheap.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import ssl
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from orchestra.config import Address, Config, Limits
from orchestra.errors import Conflict, Defect, Malformed, Unavailable, ensure
from orchestra.transports.auth import check_exposure
from orchestra.transports.door import ASGIApp, Door

if TYPE_CHECKING:
    from orchestra.transports.admission import Guard

BACKLOG = 2_048
"""Connections that the system holds while the loop is busy."""

ACCEPTED_AT_ONCE = 2
"""
asyncio's loop accepts so many before it does anything else, and where the process may open no more files, it tries as often, with a
traceback in the log for each, and then accepts nobody for a second: 2,048 took 9 s, longer than a lease. Four turns of the loop go by
until who makes room is gone, and so few fit into what is spared meanwhile: of four at once some failed, of two none.
"""

TICK_S_MAX = 1.0
TICK_S_MIN = 0.02
"""How often connections are inspected: a tenth of the shortest time limit, within these."""

INSPECTED_AT_ONCE = 16
"""
After so many connections the loop has a turn. Many that came together are too slow at the same moment, and to refuse one takes about
0.07 ms: two thousand in one go would keep everyone else waiting for 0.15 s.
"""

ABORT_S = 1.0
"""After a stop's time is over, what was cut gets this long to unwind."""


def tls_context(cert: str, key: str) -> ssl.SSLContext:
    """
    TLS 1.2 or newer with this certificate chain and key (paths of PEM files).

    Raises:
        Malformed: They can not be read, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # The empty passphrase keeps OpenSSL from asking for one at the terminal.
        context.load_cert_chain(cert, key, password="")
    except FileNotFoundError:
        raise Malformed("no such file", where=f"tls_cert {cert}, tls_key {key}") from None
    except (OSError, ValueError) as error:
        told = f"is not a certificate with its key: {error}"
        raise Malformed(told, where=f"tls_cert {cert}, tls_key {key}") from None
    return context


def _bind(address: Address) -> list[socket.socket]:
    """Listening sockets for an address; for a name, one for each of its addresses."""
    flags = socket.AI_PASSIVE
    try:
        infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as error:
        raise Malformed(f"{address.host!r}: {error.strerror}", where="listen") from None
    # A port that the system chooses differs from one family to the next, so then the first address is it.
    infos = infos[:1] if address.port == 0 else infos
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, where in dict.fromkeys(infos):
            listener = socket.socket(family, kind, protocol)
            sockets.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(where)
            listener.setblocking(False)
    except OSError as error:
        _close(sockets)
        raise _not_bound(address, error) from None
    strangers = [s for s in sockets if not Address(str(s.getsockname()[0]), 0).loopback]
    if address.loopback and strangers:
        _close(sockets)
        raise Malformed(f"{address.host!r} leads to where others can reach", where="listen")
    return sockets


def _close(sockets: list[socket.socket]) -> None:
    for opened in sockets:
        opened.close()


def _not_bound(address: Address, error: OSError) -> Conflict | Malformed:
    if error.errno == errno.EADDRINUSE:
        return Conflict(
            f"something else listens on {address}",
            where="listen",
            remedy="stop it, or choose another port (0 takes any free one)",
        )
    return Malformed(f"can not listen on {address}: {error.strerror}", where="listen")


def guard_for(app: ASGIApp, config: Config) -> Guard:
    """Load the server library and set it up: no log configuration, no signal handlers, no environment."""
    from uvicorn.config import Config as UvicornConfig

    from orchestra.transports.admission import Guard

    limits = config.limits
    loaded: Any = app
    settings = UvicornConfig(
        loaded,
        http="h11",
        ws="wsproto",
        ws_max_size=limits.message_bytes_max,
        ws_per_message_deflate=False,
        lifespan="auto",
        log_config=None,
        server_header=False,
        proxy_headers=config.behind_proxy,
        forwarded_allow_ips=["127.0.0.1", "::1"],
        workers=1,
        # The guard ends idle connections; the server's own clock for it must never be first.
        timeout_keep_alive=(limits.idle_ms + limits.headers_ms) // 1_000 + 60,
        h11_max_incomplete_event_size=limits.header_bytes_max + 1_024,
    )
    settings.load()
    return Guard(limits, settings, {}, per_address=not config.behind_proxy)


def _tick_s(limits: Limits) -> float:
    shortest = min(limits.first_byte_ms, limits.headers_ms, limits.idle_ms, limits.body_window_ms)
    return min(TICK_S_MAX, max(TICK_S_MIN, shortest / 10_000))


@contextmanager
def _stopping_by_signals(stop: anyio.Event, hurry: anyio.Event) -> Generator[None]:
    """SIGTERM and SIGINT ask for a stop; the second one cuts it short. Earlier handlers come back afterwards."""
    loop = asyncio.get_running_loop()

    def ask() -> None:
        (hurry if stop.is_set() else stop).set()

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, ask)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])


class _Listener:
    """One guarded app on its sockets."""

    def __init__(
        self,
        guard: Guard,
        context: ssl.SSLContext | None,
        stopping: Callable[[], None] | None,
    ) -> None:
        self.guard = guard
        self._stopping = stopping
        self._context = context
        self._servers: list[asyncio.Server] = []
        self._lifespan = guard.config.lifespan_class(guard.config)

    async def start(self, sockets: list[socket.socket]) -> None:
        from orchestra.transports.guard import GuardedHttp, TlsGate

        await self._lifespan.startup()
        if self._lifespan.should_exit:
            raise Unavailable("the app did not start; its log says why")
        self.guard.app_state.update(self._lifespan.state)
        context, guard = self._context, self.guard
        loop = asyncio.get_running_loop()
        self._tell_date()
        for listener in sockets:
            if context is None:
                made = await loop.create_server(
                    lambda: GuardedHttp(guard), sock=listener, backlog=ACCEPTED_AT_ONCE
                )
            else:
                made = await loop.create_server(
                    lambda: TlsGate(guard, context), sock=listener, backlog=ACCEPTED_AT_ONCE
                )
            # The loop takes one figure for what it accepts at once and for what the system holds.
            listener.listen(BACKLOG)
            self._servers.append(made)

    def _tell_date(self) -> None:
        date = formatdate(time.time(), usegmt=True).encode()
        self.guard.state.default_headers = [(b"date", date)]

    async def inspect(self) -> None:
        """End whoever is too slow, and keep the Date field true."""
        loop = asyncio.get_running_loop()
        self._tell_date()
        connections = self.guard.state.connections
        for number, connection in enumerate(list(connections), 1):
            # While others had their turn it may have gone, or been handed over to the websocket protocol.
            if connection in connections:
                watched: Any = connection
                watched.inspect(loop.time())
            if number % INSPECTED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    @property
    def busy(self) -> bool:
        """Whether a connection or an answer is left."""
        return bool(self.guard.state.connections or self.guard.state.tasks)

    async def drain(self, hurry: anyio.Event, stop_s: float) -> None:
        """Accept nothing more, let answers finish for so long, then cut."""
        state = self.guard.state
        for server in self._servers:
            server.close()
        if self._stopping is not None:
            self._stopping()
        for task in list(self.guard.handshakes.values()):
            task.cancel()
        for connection in list(state.connections):
            connection.shutdown()
        await self._wait_until_quiet(hurry, stop_s)
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            connection.transport.abort()
        await self._wait_until_quiet(anyio.Event(), ABORT_S)
        with anyio.move_on_after(max(ABORT_S, stop_s)):
            await self._lifespan.shutdown()

    async def _wait_until_quiet(self, hurry: anyio.Event, most_s: float) -> None:
        with anyio.move_on_after(most_s):
            while self.busy and not hurry.is_set():
                with anyio.move_on_after(TICK_S_MIN):
                    await hurry.wait()
                await self.inspect()


async def serve(
    app: ASGIApp,
    config: Config,
    *,
    listen: Address | None = None,
    ready: Callable[[Address], None] | None = None,
    stopping: Callable[[], None] | None = None,
    stop: anyio.Event | None = None,
    signals: bool = False,
) -> None:
    """
    Serve until ``stop`` is set, the task is cancelled, or (with ``signals``) SIGTERM or SIGINT comes.

    At a stop nothing more is accepted, and answers in the making get ``limits.stop_ms``. When this returns no connection,
    task or socket of it is left. When cancelled it cuts at once.

    Args:
        app: What to serve: a `Door`, so that nothing is served unguarded.
        config: Limits, TLS, and where to listen.
        listen: Listen here and not on ``config.listen``: for dialects with a port of their own.
        ready: Called with the real address once connections are accepted.
        stopping: Called once when a stop begins: end what would never end by itself, such as streams of events.
        stop: Set it to stop.
        signals: Take SIGTERM and SIGINT (main thread only). When embedded they stay the host's.

    Raises:
        Malformed: The configuration would leave the server open to others, or TLS files or address are unfit.
        Conflict: The port is taken.
        Unavailable: The app did not start.
        Defect: The app has no door, or the loop is not asyncio.
    """
    ensure(isinstance(app, Door), "only an app behind a door is served")
    address = listen or config.listen
    check_exposure(config, address)
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise Defect("the server runs on asyncio only") from None
    context = tls_context(config.tls_cert, config.tls_key) if config.tls else None
    listener = _Listener(guard_for(app, config), context, stopping)
    sockets = _bind(address)
    stop, hurry = stop or anyio.Event(), anyio.Event()
    tick_s, stop_s = _tick_s(config.limits), config.limits.stop_ms / 1_000
    try:
        # Whoever was told that it is ready may send a signal at once.
        with _stopping_by_signals(stop, hurry) if signals else nullcontext():
            await listener.start(sockets)
            if ready is not None:
                ready(Address(address.host, int(sockets[0].getsockname()[1])))
            await _run(listener, stop, hurry, tick_s, stop_s)
    finally:
        _close(sockets)


async def _run(
    listener: _Listener, stop: anyio.Event, hurry: anyio.Event, tick_s: float, stop_s: float
) -> None:
    try:
        while not stop.is_set():
            with anyio.move_on_after(tick_s):
                await stop.wait()
            await listener.inspect()
    except asyncio.CancelledError:
        hurry.set()
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await listener.drain(hurry, stop_s)
