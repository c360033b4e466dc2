"""The dialects keep the contract, and one that does not is found out."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path

import attrs
import pytest

from orchestra.config import DialectPort
from orchestra.dialects.asks import Ask, Dialogue, Known
from orchestra.dialects.flamenco import flamenco
from orchestra.dialects.job_runner import job_runner
from orchestra.dialects.native import native_dialect
from orchestra.dialects.wire import Dialect, Role, Route, WireRequest, WireResponse
from orchestra.engines.paths import kind_at
from orchestra.errors import OrchestraError, Rejected
from orchestra.statemachine.commands import OpenProject
from orchestra.testing.check_dialect import (
    CHECKS,
    Call,
    Check,
    DialectBench,
    DialectBroken,
    check_dialect,
)
from orchestra.testing.fuzz_dialects import FLAMENCO_CALLS, FORM
from orchestra.testing.fuzz_surfaces import CALLS
from tests.dialects.flamenco_kit import StandingClock, surroundings

pytestmark = pytest.mark.anyio


FURTHER: tuple[tuple[str, str, object], ...] = (
    ("POST", "/jobs/JOB/resume", {}),
    ("POST", "/tasks/1.1/cancel", {"grace_ms": 5}),
    ("POST", "/tasks/1.1/retry", {}),
    ("GET", "/projects", None),
    ("POST", "/projects/archive", {"name": "p"}),
    ("GET", "/workers", None),
    (
        "POST",
        "/workers/WORKER/logs",
        {
            "incarnation": 1,
            "chunks": [
                {"attempt_id": "ATTEMPT", "stream": "stdout", "offset": 0, "data": "aGVsbG8="}
            ],
        },
    ),
    ("GET", "/attempts/ATTEMPT/logs/stdout?offset=0&limit=10", None),
    ("POST", "/workers/WORKER/pause", {"reason": "cleaning"}),
    ("POST", "/workers/WORKER/resume", {}),
    ("POST", "/workers/WORKER/leave", {"incarnation": 1}),
    ("POST", "/backup", {"target": "/copy.db"}),
    ("GET", "/openapi.json", None),
)
"""What the fuzz driver leaves out, so that every route is called."""


def native_calls() -> tuple[Call, ...]:
    """A call of each route that is no stream."""
    found: list[Call] = []
    for method, target, asked in (*CALLS, *FURTHER):
        path, _, query = target.partition("?")
        pairs = dict(pair.split("=") for pair in query.split("&")) if query else {}
        body = b"" if asked is None else json.dumps(asked).encode()
        found.append(Call(method, f"/api/v1{path}", body, pairs))
    return tuple(found)


def runner() -> Dialect:
    return job_runner(DialectPort("job-runner"), kind_at)


START = b'{"worker_id": "w", "job": {"command": "bash", "path": "a.sh"}}'
RUNNER = DialectBench(
    runner,
    (
        Call("POST", "/start", START),
        Call("POST", "/stop", b'{"worker_id": "w", "job_id": "1"}'),
        Call("POST", "/query", b'{"worker_id": "w", "job_id": "1"}'),
    ),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_job_runner_keeps_the_contract(check: Check) -> None:
    routes = runner().routes
    calls = [call for call in RUNNER.calls if any(call.path == route.path for route in routes)]
    further = [
        Call(
            route.method,
            route.path.replace("{job_id}", "1")
            .replace("{worker_id}", "w")
            .replace("{stream}", "stdout"),
        )
        for route in routes
        if all(call.path != route.path for call in calls)
    ]
    await check(attrs.evolve(RUNNER, calls=(*calls, *further)))


def shelved(folder: Path) -> DialectBench:
    """Flamenco's manager with a folder for files, and every call that its workers and its server make."""
    port = DialectPort("flamenco", None, {"storage": str(folder)})
    around = surroundings(StandingClock())
    named = tuple(
        Call(
            call.method,
            call.path.replace("TICKET", "1"),
            call.body,
            headers={"content-type": FORM} if call.fields else {},
        )
        for call in FLAMENCO_CALLS
    )
    zips = tuple(Call("GET", f"/tasks/zip/{kind}1") for kind in ("", "sup/", "dep/"))
    return DialectBench(lambda: flamenco(port, around), (*named, *zips))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_flamencos_manager_keeps_the_contract(check: Check, tmp_path: Path) -> None:
    await check(shelved(tmp_path))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_native_dialect_keeps_the_contract(check: Check) -> None:
    await check(DialectBench(native_dialect, native_calls()))


# wrong ones -----------------------------------------------------------------------------------------------------------


def told(_: WireRequest, answer: object) -> WireResponse:
    return WireResponse(200, repr(answer).encode())


def refuse(error: OrchestraError) -> WireResponse:
    return WireResponse(400 if isinstance(error, Rejected) else 503, b"no")


def known(_: WireRequest) -> Known:
    return Known("well")


RIGHT = Route("look", "GET", "/look", known, told, Role.ANYONE)


def bench(
    *routes: Route, refusing: Callable[[OrchestraError], WireResponse] = refuse
) -> DialectBench:
    calls = tuple(Call(route.method, route.path, b"{}") for route in routes)
    return DialectBench(lambda: Dialect("sample", routes, refusing), calls)


def open_project(_: WireRequest) -> OpenProject:
    return OpenProject("p")


def careless(request: WireRequest) -> Known:
    return Known(json.loads(request.body)["name"])


def endless(_: WireRequest) -> Dialogue:
    def begin() -> Generator[Ask, object, object]:
        while True:
            yield Known(1)

    return Dialogue(begin)


def bodied(_: WireRequest, answer: object) -> WireResponse:
    return WireResponse(204, repr(answer).encode())


def speechless(error: OrchestraError) -> WireResponse:
    raise KeyError(error)


def blaming(error: OrchestraError) -> WireResponse:
    return WireResponse(500, str(error).encode())


_drawn = iter(range(10_000))


def moody(_: WireRequest) -> Known:
    return Known(next(_drawn))


async def test_a_right_one_passes() -> None:
    await check_dialect(bench(RIGHT))
    await check_dialect(bench(attrs.evolve(RIGHT, method="POST", decode=open_project)))


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        (bench(RIGHT, RIGHT), "route names are unique"),
        (bench(RIGHT, attrs.evolve(RIGHT, name="again")), "no two routes"),
        (attrs.evolve(bench(RIGHT), calls=()), "every route is tried"),
        (bench(attrs.evolve(RIGHT, decode=open_project)), "GET changes nothing"),
        (bench(attrs.evolve(RIGHT, encode=bodied)), "204 has no body"),
        (bench(attrs.evolve(RIGHT, decode=careless)), "nothing breaks"),
        (bench(attrs.evolve(RIGHT, decode=endless)), "a call is answered or refused"),
        (bench(attrs.evolve(RIGHT, decode=moody)), "a request is read alike"),
        (bench(RIGHT, refusing=speechless), "nothing breaks"),
        (bench(RIGHT, refusing=blaming), "what the caller did is 4xx"),
    ],
)
async def test_a_wrong_one_is_found(wrong: DialectBench, law: str) -> None:
    with pytest.raises(DialectBroken, match=law):
        await check_dialect(wrong)
