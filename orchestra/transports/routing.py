"""From an ASGI scope to a route and what it reads: path, header fields and query. Pure."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from orchestra.dialects.wire import Dialect, Route
from orchestra.errors import Defect, Malformed
from orchestra.statemachine.values import value

Scope: TypeAlias = MutableMapping[str, Any]

FIELDS = "orchestra.fields"
"""Key of the scope under which the fields are kept once they are read."""

QUERY_FIELDS_MAX = 32
"""No route has half as many parameters."""


@value
class Mounted:
    """A route where it is mounted; ``names`` are its parameters in the order of the path."""

    route: Route
    dialect: Dialect
    names: tuple[str, ...]


class Node:
    """What is known after some segments of a path."""

    __slots__ = ("methods", "next", "parameter")

    def __init__(self) -> None:
        self.next: dict[str, Node] = {}
        self.parameter: Node | None = None
        self.methods: dict[str, Mounted] = {}


class Paths:
    """Routes by path: one step a segment, however many routes there are. A fixed segment goes before a parameter."""

    def __init__(self) -> None:
        self._root = Node()

    def add(self, dialect: Dialect, route: Route) -> None:
        """Mount a route. Raises `Defect` when its method and path are taken."""
        node = self._root
        names: list[str] = []
        for segment in route.path.split("/")[1:]:
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or Node()
                node = node.parameter
            else:
                node = node.next.setdefault(segment, Node())
        if route.method in node.methods:
            raise Defect(f"two routes are mounted at {route.method} {route.path}")
        node.methods[route.method] = Mounted(route, dialect, tuple(names))

    def find(self, path: str) -> tuple[Node | None, list[str]]:
        """The node of a decoded path, and the values of its parameters."""
        node = self._root
        values: list[str] = []
        for segment in path.split("/")[1:]:
            fixed = node.next.get(segment)
            if fixed is not None:
                node = fixed
            elif node.parameter is not None and segment:
                values.append(segment)
                node = node.parameter
            else:
                return None, values
        return node, values


def read_headers(scope: Scope) -> dict[str, str]:
    """
    Fields by name; a repeated one is joined with a comma, so a second key or token never matches anything.

    They are read once a request: the door's reading is kept in the scope for who comes after, as long as nobody between the two puts other
    fields there. They are not to be changed.
    """
    raw: object = scope["headers"]
    read, known = scope.get(FIELDS, (None, None))
    if known is not None and read is raw:
        return known
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    scope[FIELDS] = (raw, found)
    return found


def read_query(scope: Scope) -> dict[str, str]:
    """Parameters by name. Raises `Malformed` for one that comes twice, too many of them, or bytes that are no text."""
    raw: bytes = scope.get("query_string", b"")
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError:
        raise Malformed("the query part of the address can not be read", where="query") from None
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Malformed("this parameter comes twice", where=name[:200])
            seen.add(name)
    return found


def read_path(scope: Scope) -> str:
    """The path below where the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :]
    return path
