"""Every route of every dialect, under every method and every name of the server: a table that is generated from the routers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from orchestra import App
from orchestra.config import Config, DialectPort
from orchestra.dialects.flamenco import Surroundings, flamenco
from orchestra.dialects.job_runner import job_runner
from orchestra.dialects.native import native_dialect
from orchestra.dialects.tango import member
from orchestra.dialects.tango_manager import manager
from orchestra.dialects.tango_options import read_options
from orchestra.dialects.wire import Dialect, Role
from orchestra.engines.paths import kind_at
from orchestra.testing.fuzz_worlds import stepped
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.policy import policy_for
from orchestra.transports.tokens import read_plain_tokens

METHODS = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "get",
    "X",
)
OURS = ("127.0.0.1", "127.0.0.1:8440", "localhost", "[::1]:8440")
STRANGE = (
    "evil.example",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "",
    "127.0.0.1, evil.example",
    "127.0.0.1 ",
)


def a_flamenco() -> Dialect:
    surroundings = Surroundings(
        lambda: 0, lambda: (0, 0), _never, lambda calls: (None,) * len(calls)
    )
    return flamenco(DialectPort("flamenco"), surroundings)


def _never(folder: str) -> Any:
    raise AssertionError(folder)


def a_member() -> Dialect:
    app = App()

    @app.task
    def generate(user_id: str, project_id: str) -> None: ...

    served = member(app, container_id="code_gen", secret="0123456789abcdef")
    return served.dialect(lambda: 0, lambda calls: [None] * len(calls))


def a_manager() -> Dialect:
    place = {"address": "127.0.0.1:8888"}
    return manager(
        read_options(DialectPort("tango", None, {"members": {"code_gen": place}})), lambda *_: False
    )


DIALECTS: dict[str, Callable[[], Dialect]] = {
    "native": native_dialect,
    "job runner": lambda: job_runner(DialectPort("job-runner"), kind_at),
    "flamenco": a_flamenco,
    "tango member": a_member,
    "tango manager": a_manager,
}


class Reached:
    """In place of the application: remembers that somebody came through the door."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        self.count += 1
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})


def knock(door: Door, kind: str, method: str, path: str, headers: dict[str, str]) -> int:
    """The status of the answer; 0 for a websocket that was let in."""
    scope: dict[str, Any] = {
        "type": kind,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 5_000),
        "extensions": {"websocket.http.response": {}},
    }
    if kind == "http":
        scope["method"] = method
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": f"{kind}.request" if kind == "http" else "websocket.connect"}

    async def send(message: Any) -> None:
        if message["type"].endswith("response.start"):
            statuses.append(message["status"])

    stepped(door(scope, receive, send))
    return statuses[0] if statuses else 0


def filled(path: str) -> str:
    """A path with something in the places of its parameters."""
    return "/".join("a1" if step.startswith("{") else step for step in path.split("/"))


def falls_under(path: str, template: str) -> bool:
    """Whether a path is one of a template's, read step by step."""
    steps, given = template.split("/"), path.split("/")
    alike = (step == word or step.startswith("{") for step, word in zip(steps, given, strict=False))
    return len(steps) == len(given) and all(alike)


def places(dialect: Dialect) -> dict[tuple[str, str], set[str]]:
    """The methods under each path, by kind of connection."""
    found = {
        ("http", filled(route.path)): {
            each.method for each in dialect.routes if falls_under(filled(route.path), each.path)
        }
        for route in dialect.routes
    }
    return {**found, **{("websocket", channel.path): {"GET"} for channel in dialect.channels}}


@pytest.mark.parametrize("name", list(DIALECTS))
def test_every_route_method_and_name_has_its_one_answer(name: str) -> None:
    dialect = DIALECTS[name]()
    policy = policy_for([dialect])
    gate = open_gate(Config(), policy).at_own_port(policy, frozenset(dialect.hosts))
    app = Reached()
    door = Door(app, gate, refuse=dialect.refuse)
    cells = let_in = 0
    table = places(dialect)
    assert len({route.name for route in dialect.routes}) == len(dialect.routes)
    for ((kind, path), methods), method in product(table.items(), METHODS):
        known = {row.method for row in policy.rows if row.scope_type == kind}
        assert methods <= known
        for host in (*OURS, *STRANGE):
            before = app.count
            status = knock(door, kind, method, path, {"host": host} if host else {})
            reached = app.count > before
            cell = (kind, method, path, host)
            # A websocket has no method; HEAD is GET without the body.
            may = kind == "websocket" or ("GET" if method == "HEAD" else method) in methods
            assert reached == (may and host in OURS), cell
            if not reached:
                assert status == (403 if host not in OURS else 405), cell
            cells += 1
            let_in += reached
    assert cells == len(table) * len(METHODS) * (len(OURS) + len(STRANGE))
    assert 0 < let_in < cells // 2


@pytest.mark.parametrize("name", list(DIALECTS))
def test_where_tokens_are_needed_each_route_opens_to_its_roles_alone(
    name: str, tmp_path: Any
) -> None:
    dialect = DIALECTS[name]()
    policy = policy_for([dialect])
    path = str(tmp_path / "tokens")
    app = Reached()
    door = Door(app, open_gate(Config(token_file=path, require_token=True), policy))
    right = {role: token.reveal() for role, token in read_plain_tokens(path).items()}
    bearers = {None: "", **right}
    for route in dialect.routes:
        place = filled(route.path)
        rivals = [
            each for each in dialect.routes if each is not route and each.method == route.method
        ]
        # A path that several routes could mean is judged as the first of them that has it fixed.
        shadowed = any(each.path == place for each in rivals)
        for held, token in bearers.items():
            before = app.count
            headers = {"host": "localhost"}
            if token:
                headers["authorization"] = f"Bearer {token}"
            status = knock(door, "http", route.method, place, headers)
            reached = app.count > before
            if route.role is Role.ANYONE:
                assert reached, route.name
            elif held is None:
                assert (reached, status) == (False, 401), route.name
            elif not shadowed and held is Role.OPERATOR:
                assert reached, route.name
            elif not shadowed and held is Role.WORKER:
                assert reached == (route.role is Role.WORKER), route.name
