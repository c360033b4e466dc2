"""
The contract of `orchestra.dialects.wire.Dialect` as a suite: prove your own dialect with it.

::

    BENCH = DialectBench(
        make=my_dialect,
        calls=(Call("POST", "/start", b'{"name": "a"}'), Call("GET", "/jobs", query={"limit": "5"})),
    )

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_dialect(check):
        await check(BENCH)

or all at once: ``await check_dialect(bench)``. The calls are made to a real orchestrator with a store in memory; each check begins anew.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random

import anyio
import attrs

from orchestra.dialects.wire import Dialect, Route, WireRequest, WireResponse
from orchestra.errors import OrchestraError, Rejected
from orchestra.ports import Asker, Story
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.storage.memory import MemoryStore
from orchestra.transports.asking import put

METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
DONE, REFUSED, FAILED, OVER = 200, 400, 500, 600
"""Where the classes of status begin (RFC 9110, section 15)."""

BODILESS = frozenset({204, 304})
MOVES_MAX = 500
ANSWER_S = 10.0
"""A call to an orchestrator in memory takes milliseconds; one that takes this long waits for something that never comes."""

DAMAGED = 200
"""How many damaged forms of each call are tried."""

_SPITE = (b"", b"\x00", b"\xff\xfe", b"{", b"[]", b"null", b"1e999", b'"', b"{}" * 40, b"9" * 400)


class DialectBroken(AssertionError):
    """A dialect does not keep the contract. The message begins with the law that it broke."""


@attrs.frozen(slots=True)
class Call:
    """One well-formed request: a method, a path from the dialect's root on (parameters filled in), and what goes with it."""

    method: str
    path: str
    body: bytes = b""
    query: Mapping[str, str] = attrs.field(factory=dict[str, str])
    headers: Mapping[str, str] = attrs.field(factory=dict[str, str])


@attrs.frozen(slots=True)
class DialectBench:
    """
    How to come by a dialect, and what its clients send.

    Args:
        make: A new dialect, with nothing remembered.
        calls: Requests in an order in which they can be made; every route should be called by one.
        changing_gets: Names of routes that change something although they are asked by GET, because their protocol has it so.
    """

    make: Callable[[], Dialect]
    calls: tuple[Call, ...]
    changing_gets: frozenset[str] = frozenset()


Check = Callable[[DialectBench], Awaitable[None]]


async def check_dialect(bench: DialectBench) -> None:
    """
    Run every check of `CHECKS`.

    Raises:
        DialectBroken: At the first law that does not hold.
    """
    for check in CHECKS:
        await check(bench)


def _expect(condition: object, law: str) -> None:
    if not condition:
        raise DialectBroken(law)


async def check_table(bench: DialectBench) -> None:
    """Names and places of routes are unique, and each is called by one of the calls at least."""
    dialect = bench.make()
    names = [route.name for route in dialect.routes]
    _expect(len(names) == len(set(names)), "route names are unique")
    places = [(route.method, tuple(_shape(route.path))) for route in dialect.routes]
    _expect(len(places) == len(set(places)), "no two routes have one method and one path")
    for route in dialect.routes:
        _expect(route.method in METHODS, f"{route.name}: {route.method} is a method")
        _expect(route.path.startswith("/"), f"{route.name}: a path begins with a slash")
    called = {_found(dialect, call)[0].name for call in bench.calls}
    missing = [
        route.name for route in dialect.routes if route.name not in called and not route.stream
    ]
    _expect(not missing, f"every route is tried: add calls of {', '.join(missing)}")


async def check_answers(bench: DialectBench) -> None:
    """Each call is answered by something that HTTP can carry, and none by a failure of the server."""
    async with _served(bench) as (dialect, asker):
        for call in bench.calls:
            route, request = _found(dialect, call)
            if route.stream:
                continue
            response = await _answered(dialect, asker, route, request)
            told = f"{route.name} is answered with {response.status}"
            _expect(DONE <= response.status < FAILED, f"a call is answered or refused: {told}")
            if response.status in BODILESS:
                _expect(not response.body, f"{response.status} has no body: {route.name}")


async def check_reading(bench: DialectBench) -> None:
    """GET changes nothing: a browser, a crawler or a cache may ask it again."""
    async with _served(bench) as (dialect, asker):
        for call in bench.calls:
            route, request = _found(dialect, call)
            if route.stream:
                continue
            before = await asker.story(Story(0, MOVES_MAX))
            await _answered(dialect, asker, route, request)
            after = await asker.story(Story(0, MOVES_MAX))
            if route.method == "GET" and route.name not in bench.changing_gets:
                _expect(before == after, f"GET changes nothing: {route.name} did")


async def check_decoding(bench: DialectBench) -> None:
    """To read a request does nothing yet: the same request is read alike twice, and nothing has happened."""
    async with _served(bench) as (dialect, asker):
        for call in bench.calls:
            route, request = _found(dialect, call)
            first, second = _decoded(route, request), _decoded(route, request)
            _expect(first == second, f"a request is read alike each time: {route.name}")
        _expect(not await asker.story(Story(0, MOVES_MAX)), "to read a request does nothing yet")


async def check_damage(bench: DialectBench) -> None:
    """Whatever is wrong with a request is refused in the dialect's words, with a status of 4xx; nothing breaks."""
    rng = Random(1)
    async with _served(bench) as (dialect, asker):
        for call in bench.calls:
            route, request = _found(dialect, call)
            if route.stream:
                continue
            for _ in range(DAMAGED):
                damaged = _damaged(request, rng)
                response = await _answered(dialect, asker, route, damaged)
                told = f"{route.name} says {response.status} to {damaged.body[:60]!r} {dict(damaged.query)}"
                _expect(response.status < FAILED, f"what is wrong is refused: {told}")


async def check_refusals(bench: DialectBench) -> None:
    """There are words for every refusal there is: of 4xx for what the caller did, of 5xx for what happened to us."""
    dialect = bench.make()
    kinds: list[type[OrchestraError]] = [OrchestraError]
    for kind in kinds:
        kinds.extend(each for each in kind.__subclasses__() if each.__module__ == kind.__module__)
        error = kind("a reason", where="field") if issubclass(kind, Rejected) else kind("a reason")
        response = _sound(lambda error=error: dialect.refuse(error), f"refusing {kind.__name__}")
        _expect(REFUSED <= response.status < OVER, f"a refusal says so: {kind.__name__}")
        if issubclass(kind, Rejected):
            _expect(response.status < FAILED, f"what the caller did is 4xx: {kind.__name__}")


CHECKS: tuple[Check, ...] = (
    check_table,
    check_answers,
    check_reading,
    check_decoding,
    check_damage,
    check_refusals,
)


@asynccontextmanager
async def _served(bench: DialectBench) -> AsyncGenerator[tuple[Dialect, Asker]]:
    orchestrator = Orchestrator(MemoryStore())
    broken: DialectBroken | None = None
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        try:
            yield bench.make(), orchestrator.for_principal("somebody")
        except DialectBroken as error:
            broken = error  # raised again outside of the group, which would wrap it
        group.cancel_scope.cancel()
    if broken is not None:
        raise broken


def _shape(path: str) -> list[str]:
    return ["{}" if step.startswith("{") else step for step in path.split("/")]


def _found(dialect: Dialect, call: Call) -> tuple[Route, WireRequest]:
    """The route of a call, as a transport finds it: a fixed step goes before a parameter."""
    able: list[tuple[list[bool], Route, dict[str, str]]] = []
    for route in dialect.routes:
        steps, given = route.path.split("/"), call.path.split("/")
        if route.method != call.method or len(steps) != len(given):
            continue
        if all(
            step == word or (step.startswith("{") and word)
            for step, word in zip(steps, given, strict=True)
        ):
            values = {
                step[1:-1]: word
                for step, word in zip(steps, given, strict=True)
                if step.startswith("{")
            }
            able.append(([step.startswith("{") for step in steps], route, values))
    _expect(able, f"{call.method} {call.path} has a route")
    _, route, values = min(able, key=lambda each: each[0])
    headers = {"content-type": next(iter(route.media_types), ""), **call.headers}
    return route, WireRequest(
        call.method, call.path, values, call.query, headers, call.body, "127.0.0.1"
    )


def _sound(call: Callable[[], WireResponse], what: str) -> WireResponse:
    try:
        return call()
    except Exception as error:  # noqa: BLE001  # whatever a dialect raises breaks the contract, and is told below
        raised = error
    raise DialectBroken(f"nothing breaks: {what} raises {raised!r}") from raised


def _decoded(route: Route, request: WireRequest) -> str:
    """What is asked, comparable: generators and functions by what they are called."""
    try:
        asked = route.decode(request)
    except OrchestraError as error:
        return repr(error)
    except Exception as error:  # noqa: BLE001  # whatever a dialect raises breaks the contract, and is told below
        raised = error
    else:
        return repr(asked) if " at 0x" not in repr(asked) else type(asked).__name__
    raise DialectBroken(f"nothing breaks: {route.name} raises {raised!r}") from raised


async def _answered(
    dialect: Dialect, asker: Asker, route: Route, request: WireRequest
) -> WireResponse:
    try:
        with anyio.fail_after(ANSWER_S):
            answer = await put(asker, route.decode(request))  # pyright: ignore[reportArgumentType] - a wrong one is found out
    except OrchestraError as error:
        refused = error
        return _sound(lambda: dialect.refuse(refused), f"refusing {refused!r}")
    except Exception as error:  # noqa: BLE001  # whatever a dialect raises breaks the contract, and is told below
        raised = error
    else:
        return _sound(lambda: route.encode(request, answer), f"{route.name}'s answer")
    told = f"{request.body[:60]!r} {dict(request.query)}"
    raise DialectBroken(f"nothing breaks: {route.name} raises {raised!r} at {told}") from raised


def _damaged(request: WireRequest, rng: Random) -> WireRequest:
    """One thing or several of it are wrong."""
    body, query, path = request.body, dict(request.query), dict(request.path)
    for _ in range(rng.randint(1, 3)):
        part = rng.choice(("body", "cut", "bytes", "query", "path"))
        if part == "body":
            body = rng.choice(_SPITE)
        elif part == "cut" and body:
            body = body[: rng.randrange(len(body))]
        elif part == "bytes" and body:
            at = rng.randrange(len(body))
            body = body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
        elif part == "query":
            name = rng.choice([*query, "limit", "none"])
            query[name] = rng.choice(("", "-1", "x" * 300, "\x00", "9" * 30))
        elif path:
            path[rng.choice([*path])] = rng.choice(
                ("-1", "x" * 300, "\x00", "9" * 30, "..", "a-0001")
            )
    return attrs.evolve(request, body=body, query=query, path=path)
