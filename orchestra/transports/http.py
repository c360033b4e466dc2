"""
Serves dialects over HTTP and websocket: an ASGI application that knows no dialect by name.

A request goes: path → route → caller → body → ``decode`` → `asking.put` → ``encode``. The path is taken from the ASGI scope, never from
a Host or another header. Whatever is refused on the way is worded by the dialect's own ``refuse``.
"""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    MutableMapping,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from http import HTTPStatus
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import attrs
from starlette.applications import Starlette

from orchestra.dialects.refusals import BodyTooLong, BodyTooSlow, MethodRefused, RouteUnknown
from orchestra.dialects.wire import PING_S, Channel, Dialect, Route, WireRequest, WireResponse
from orchestra.errors import Defect, Forbidden, OrchestraError, Unavailable, shortage
from orchestra.ports import Asker, Push
from orchestra.transports.asking import AskerSource, put
from orchestra.transports.auth import Authoriser, Principal
from orchestra.transports.bodies import check_headers, read_body
from orchestra.transports.policy import HTTP, WEBSOCKET, Policy, allows, check_mounted
from orchestra.transports.routing import (
    Mounted,
    Node,
    Paths,
    Scope,
    read_headers,
    read_path,
    read_query,
)
from orchestra.transports.websocket import CLOSE_S, ChannelServer

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

PRINCIPAL = "orchestra.principal"
"""Key of the scope under which whoever stands in front has put the caller."""

DECODED_IN_THREAD_BYTES = 128 * 1024
"""A longer body is read in a thread: some milliseconds of parsing would hold up everybody's heartbeats."""

_STOPS = "the server is about to stop"
POLICY_VIOLATION = 1008
SERVICE_RESTART = 1012
_FIXED = (
    (b"cache-control", b"no-store"),
    # Output of a task must not become a page in somebody's browser.
    (b"x-content-type-options", b"nosniff"),
)

LOG = logging.getLogger("orchestra.transports.http")


class HttpApp(Starlette):
    """
    The ASGI application that `http_app` makes. It is as durable as what it asks: nothing is kept here.

    Routes and middleware of Starlette's own may be added to it; the dialects serve what is left. Their routes are found by `Paths`,
    in one step a segment, where a list of patterns would be tried one by one.

    Use `close_streams` before its server stops, so that watchers do not hold the stop up.
    """

    def __init__(
        self,
        source: AskerSource,
        dialects: Iterable[Dialect],
        authoriser: Authoriser | None,
        *,
        body_bytes_max: int | None = None,
    ) -> None:
        super().__init__(lifespan=self._alive)
        self.router.default = self._serve
        self.router.redirect_slashes = False
        self.dialects = tuple(dialects)
        self._source = source
        self._authoriser = authoriser
        self._paths = Paths()
        self._channels: dict[str, tuple[Channel, Mapping[str, Route]]] = {}
        self._streams: set[anyio.CancelScope] = set()
        self._stopping = False
        for dialect in self.dialects:
            by_name = {route.name: route for route in dialect.routes}
            for route in dialect.routes:
                self._paths.add(dialect, _bounded(route, body_bytes_max))
            for channel in dialect.channels:
                self._channels[channel.path] = (channel, by_name)
        self._refuse = self.dialects[0].refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it. The framework's layers are passed only when somebody has added something to them."""
        added = self.user_middleware or self.router.routes or self.exception_handlers
        if scope["type"] == "lifespan" or added:
            await super().__call__(scope, receive, send)
        else:
            await self._serve(scope, receive, send)

    def mounted(self) -> tuple[tuple[str, str, str], ...]:
        """(scope type, method, route name) of everything that is served, for `policy.check_mounted`."""
        return tuple(
            (HTTP, route.method, route.name)
            for dialect in self.dialects
            for route in dialect.routes
        ) + tuple(
            (WEBSOCKET, "GET", channel.name)
            for dialect in self.dialects
            for channel in dialect.channels
        )

    def close_streams(self) -> None:
        """
        End every stream and channel that is open, and from now on each that is opened: whoever comes back before the door is shut would
        hold the stop up as before. Call it in the loop that serves.
        """
        self._stopping = True
        for scope in tuple(self._streams):
            scope.cancel()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever no route of the framework's own has taken."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)

    @asynccontextmanager
    async def _alive(self, _app: Starlette) -> AsyncGenerator[None]:
        self._stopping = False
        try:
            yield
        finally:
            self.close_streams()

    # one request ------------------------------------------------------------------------------------------------

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        node, values = self._paths.find(read_path(scope))
        method: str = scope["method"]
        if node is None or not node.methods:
            await _respond(send, method, self._refuse(_unknown(scope)))
            return
        mounted = node.methods.get("GET" if method == "HEAD" else method)
        if mounted is None:
            mounted = next(iter(node.methods.values()))
            refused = mounted.dialect.refuse(_not_allowed(method, node))
            await _respond(send, method, refused)
            return
        try:
            response = await self._served(scope, receive, send, mounted, values)
        except (BodyTooLong, BodyTooSlow) as error:
            # The rest of the body is not waited for.
            refused = mounted.dialect.refuse(error)
            closing = (*refused.headers, ("connection", "close"))
            response = attrs.evolve(refused, headers=closing)
        except OrchestraError as error:
            if isinstance(error, Defect):
                LOG.exception("%s failed", mounted.route.name)
            response = mounted.dialect.refuse(error)
        except Exception as error:
            scarce = shortage(error)
            await _respond(send, method, mounted.dialect.refuse(scarce or Defect("a bug")))
            if scarce is not None:
                LOG.warning("%s: %s", mounted.route.name, scarce)
                return
            raise
        if response is not None:
            await _respond(send, method, response)

    async def _served(
        self, scope: Scope, receive: Receive, send: Send, mounted: Mounted, values: list[str]
    ) -> WireResponse | None:
        """The response; None when it has been sent as a stream."""
        route = mounted.route
        headers = read_headers(scope)
        asker = self._asker(self._principal(scope, HTTP, route, headers))
        body = b""
        if check_headers(route, headers):
            # The server behind a door watches over the pace of bodies itself.
            body = await read_body(route, receive, timed=PRINCIPAL not in scope)
        request = WireRequest(
            method=route.method,
            target=scope["path"],
            path=dict(zip(mounted.names, values, strict=True)),
            query=read_query(scope),
            headers=headers,
            body=body,
            client=str((scope.get("client") or ("",))[0]),
        )
        if len(body) > DECODED_IN_THREAD_BYTES:
            asked: Any = await anyio.to_thread.run_sync(route.decode, request)
        else:
            asked = route.decode(request)
        if not route.stream:
            return route.encode(request, await put(asker, asked))
        if scope["method"] == "HEAD":
            raise MethodRefused("a stream has no end to be measured", allow=("GET",))
        await self._stream(receive, send, route, request, asker.watch(asked))
        return None

    def _principal(
        self, scope: Scope, kind: str, route: Route | Channel, headers: Mapping[str, str]
    ) -> Principal:
        """Who asks, and that it may. Without anybody to tell who asks, nobody may ask anything."""
        found = scope.get(PRINCIPAL)
        if isinstance(found, Principal):
            if isinstance(route, Route) and not allows(found.role, route.role):
                raise Forbidden(
                    f"a {found.role.value}'s token does not open {route.name!r}", where=route.name
                )
            return found
        if self._authoriser is None:
            raise Forbidden("nobody says who may use this", where=route.name)
        client = str((scope.get("client") or ("", 0))[0])
        return self._authoriser.authorise(kind, route.name, headers, client)

    def _asker(self, principal: Principal) -> Asker:
        # Made anew for each request: two tokens may have one name and open different things.
        return self._source.for_principal(principal.name, principal.acting)

    # streams ----------------------------------------------------------------------------------------------------

    @contextmanager
    def _closable(self) -> Generator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            self._streams.add(scope)
            if self._stopping:
                scope.cancel()
            try:
                yield scope
            finally:
                self._streams.discard(scope)

    async def _stream(
        self,
        receive: Receive,
        send: Send,
        route: Route,
        request: WireRequest,
        pushing: AbstractAsyncContextManager[AsyncIterator[Push]],
    ) -> None:
        """Send pushes as they come until either side ends it. A refusal before the first byte is raised."""
        begun = False
        with self._closable() as scope:
            if self._stopping:
                raise Unavailable(_STOPS)
            async with pushing as pushes, anyio.create_task_group() as group:
                lock = anyio.Lock()

                async def piece(body: bytes) -> None:
                    async with lock:
                        await send({"type": "http.response.body", "body": body, "more_body": True})

                async def until_gone() -> None:
                    while (await receive())["type"] != "http.disconnect":
                        pass
                    scope.cancel()

                async def keep_alive() -> None:
                    while route.ping:
                        await anyio.sleep(PING_S)
                        await piece(route.ping)

                headers = [(b"content-type", route.stream_media_type.encode()), *_FIXED]
                begun = True
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                # Some servers send the header with the first piece: the reader waits for it.
                await piece(route.ping)
                group.start_soon(until_gone)
                group.start_soon(keep_alive)
                async for push in pushes:
                    await piece(route.encode(request, push).body)
                group.cancel_scope.cancel()
        if not begun:
            raise Unavailable(_STOPS)
        await send({"type": "http.response.body", "body": b""})

    # websockets -------------------------------------------------------------------------------------------------

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._channels.get(read_path(scope))
        await receive()
        try:
            if found is None:
                raise _unknown(scope)
            channel, routes = found
            principal = self._principal(scope, WEBSOCKET, channel, read_headers(scope))
        except OrchestraError as error:
            await _deny(scope, send, self._refuse(error))
            return
        await send({"type": "websocket.accept"})
        server = ChannelServer(
            channel.open(), self._asker(principal), routes, principal, receive=receive, send=send
        )
        with self._closable() as closed:
            await server.run()
        if closed.cancelled_caught:
            with anyio.move_on_after(CLOSE_S):
                await send({"type": "websocket.close", "code": SERVICE_RESTART})


def _bounded(route: Route, body_bytes_max: int | None) -> Route:
    """The route, reading no longer bodies than the server allows."""
    if body_bytes_max is None or body_bytes_max >= route.body_bytes_max:
        return route
    return attrs.evolve(route, body_bytes_max=body_bytes_max)


def _unknown(scope: Scope) -> RouteUnknown:
    return RouteUnknown("there is nothing at this path", where=str(scope["path"])[:200])


def _not_allowed(method: str, node: Node) -> MethodRefused:
    return MethodRefused(f"{method[:20]} is not for this path", allow=tuple(sorted(node.methods)))


def _fields(response: WireResponse) -> list[tuple[bytes, bytes]]:
    if response.status == HTTPStatus.NO_CONTENT:
        fields = [*_FIXED]
    else:
        length = b"%d" % len(response.body)
        kind = response.media_type.encode()
        fields = [(b"content-type", kind), *_FIXED, (b"content-length", length)]
    for name, value in response.headers:
        fields.append((name.encode("latin-1"), value.encode("latin-1")))
    return fields


async def _respond(send: Send, method: str, response: WireResponse) -> None:
    start = {"status": response.status, "headers": _fields(response)}
    await send({"type": "http.response.start", **start})
    body = b"" if method == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})


async def _deny(scope: Scope, send: Send, response: WireResponse) -> None:
    """Refuse the upgrade, with the reason where the server can carry one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return
    start = {"status": response.status, "headers": _fields(response)}
    await send({"type": "websocket.http.response.start", **start})
    await send({"type": "websocket.http.response.body", "body": response.body})


def http_app(
    source: AskerSource,
    dialects: Iterable[Dialect],
    authoriser: Authoriser | None = None,
    *,
    policy: Policy | None = None,
    body_bytes_max: int | None = None,
) -> HttpApp:
    """
    The application that serves dialects.

    Args:
        source: Who answers.
        dialects: Served under the full paths of their routes. The first words the refusals that belong to no route.
        authoriser: Decides about a request when nobody in front, such as a `door.Door`, has put a `Principal` into the scope. Without
            either, nothing is served.
        policy: The table that stands in front; the application must have a row in it for each of its routes.
        body_bytes_max: No route reads a longer body, whatever it says itself; None for no further bound.

    Raises:
        Defect: A route or channel has no row in the table, or two have the same place.
    """
    app = HttpApp(source, dialects, authoriser, body_bytes_max=body_bytes_max)
    if policy is not None:
        check_mounted(policy, app.mounted())
    return app
