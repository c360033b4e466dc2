"""
The one table that says who may use which route: default deny, for HTTP and websocket alike. Pure: no framework, no I/O.

Rows come from the routes' own declarations (`Route.role`) and from the few routes that belong to no dialect. What has no row does
not exist for anybody, and an app that mounts a route without one does not start (`check_mounted`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from orchestra.dialects.wire import Dialect, Role
from orchestra.errors import Defect
from orchestra.statemachine.values import value

HTTP = "http"
WEBSOCKET = "websocket"

OPENS: Mapping[Role, frozenset[Role]] = MappingProxyType(
    {
        Role.ANYONE: frozenset(Role),
        Role.WORKER: frozenset({Role.WORKER, Role.OPERATOR}),
        Role.VIEWER: frozenset({Role.VIEWER, Role.OPERATOR}),
        Role.OPERATOR: frozenset({Role.OPERATOR}),
    }
)
"""Needed role → held roles that satisfy it. A viewer reads and no more: its token must not report results as a worker."""

TOKEN_HOLDERS = frozenset({Role.WORKER, Role.VIEWER, Role.OPERATOR})


def allows(held: Role, needed: Role) -> bool:
    """Whether who holds a role may do what needs another. A websocket session asks it for each message."""
    return held in OPENS[needed]


@value
class Row:
    """
    One row of the table.

    Args:
        scope_type: ``http`` or ``websocket``.
        method: The HTTP method; ``GET`` for a websocket.
        route: The route's name.
        path: Its path template: ``{name}`` is one segment, ``{name:path}`` the rest.
        opens: Held roles that may use it.
    """

    scope_type: str
    method: str
    route: str
    path: str
    opens: frozenset[Role]


def http_row(method: str, route: str, path: str, role: Role) -> Row:
    """A row for an HTTP route that belongs to no dialect, such as ``/health``."""
    return Row(HTTP, method, route, path, OPENS[role])


def websocket_row(route: str, path: str, opens: frozenset[Role] = TOKEN_HOLDERS) -> Row:
    """A row for a websocket. By default every token opens it, and its session asks `allows` for each message."""
    return Row(WEBSOCKET, "GET", route, path, opens)


def _pattern(path: str) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for hole in re.finditer(r"\{[A-Za-z_][A-Za-z0-9_]*(:[a-z]+)?\}", path):
        parts.append(re.escape(path[at : hole.start()]))
        parts.append(".*" if hole.group(1) == ":path" else "[^/]+")
        at = hole.end()
    parts.append(re.escape(path[at:]))
    return re.compile("".join(parts), re.DOTALL)


class Policy:
    """
    The table. Immutable once made.

    Raises:
        Defect: Two rows have the same scope type and route name.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)
        self._by_key = {(row.scope_type, row.route): row for row in self.rows}
        if len(self._by_key) < len(self.rows):
            raise Defect("two rows of the policy table share a scope type and a route name")
        self._patterns = tuple((_pattern(row.path), row) for row in self.rows)
        self._fixed = {
            (row.scope_type, row.method, row.path): row for row in self.rows if "{" not in row.path
        }

    def row(self, scope_type: str, route: str) -> Row | None:
        """The row of a route, or None: then nobody may use it."""
        return self._by_key.get((scope_type, route))

    def match(self, scope_type: str, method: str, path: str) -> Row | None:
        """The row of the first route that a decoded path falls under, or None."""
        method = _read_as(method)
        fixed = self._fixed.get((scope_type, method, path))
        if fixed is not None:
            return fixed
        for pattern, row in self._patterns:
            if (
                row.scope_type == scope_type
                and row.method == method
                and pattern.fullmatch(path) is not None
            ):
                return row
        return None

    def methods(self, scope_type: str, path: str) -> tuple[str, ...]:
        """The methods under which a path has a row, sorted."""
        return tuple(
            sorted(
                {
                    row.method
                    for pattern, row in self._patterns
                    if row.scope_type == scope_type and pattern.fullmatch(path) is not None
                }
            )
        )


def _read_as(method: str) -> str:
    """HEAD is GET without the body, so it falls under GET's row."""
    return "GET" if method == "HEAD" else method


def policy_for(dialects: Sequence[Dialect], extra: Iterable[Row] = ()) -> Policy:
    """The table of the dialects that one app mounts, their websockets included, and of its further routes."""
    rows = [
        Row(HTTP, route.method, route.name, route.path, OPENS[route.role])
        for dialect in dialects
        for route in dialect.routes
    ]
    channels = [
        websocket_row(channel.name, channel.path)
        for dialect in dialects
        for channel in dialect.channels
    ]
    return Policy([*rows, *channels, *extra])


def check_mounted(policy: Policy, mounted: Iterable[tuple[str, str, str]]) -> None:
    """
    Compare what an app mounts with the table, before it serves anything.

    Args:
        mounted: (scope type, method, route name) of each route.

    Raises:
        Defect: A route has no row under its method.
    """
    bare: list[tuple[str, str, str]] = []
    for scope_type, method, route in mounted:
        row = policy.row(scope_type, route)
        if row is None or row.method != _read_as(method):
            bare.append((scope_type, method, route))
    if bare:
        told = ", ".join(f"{scope_type} {method} {route!r}" for scope_type, method, route in bare)
        raise Defect(f"no row in the policy table for {told}")
