"""The HTTP application as ASGI, without a server: routing, bodies, roles, streams. On both event loops."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from orchestra.dialects.native import native_dialect
from orchestra.dialects.wire import Role, Route, WireResponse
from orchestra.errors import Defect, Unauthenticated
from orchestra.statemachine.commands import CancelJob, SubmitJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetOverview
from orchestra.statemachine.replies import JobAccepted, JobChanged, Overview
from orchestra.testing.transport_bench import FarEnd
from orchestra.testing.transport_samples import Samples
from orchestra.transports.auth import Principal
from orchestra.transports.http import http_app
from orchestra.transports.policy import Policy, policy_for
from tests.transports.asgi_peer import JOB, JSON, OPERATOR, Peer, asked

pytestmark = pytest.mark.anyio


@pytest.fixture
def far() -> FarEnd:
    end = FarEnd()
    end.answers = {
        GetOverview: Samples(full=True).of(Overview),
        SubmitJob: JobAccepted("job-1", 1, 1),
        CancelJob: JobChanged("17", JobStatus.CANCELLING),
    }
    return end


async def test_a_job_is_created_and_found_under_its_address(far: FarEnd) -> None:
    reply = await asked(far, "POST", "/api/v1/jobs", JOB, JSON)
    assert reply.status == 201
    assert reply.headers["location"] == "/api/v1/jobs/job-1"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert int(reply.headers["content-length"]) == len(reply.body)
    assert far.arrived[0].principal == "ann"


async def test_a_repeated_job_is_not_created_again(far: FarEnd) -> None:
    far.answers[SubmitJob] = JobAccepted("job-1", 1, 1, repeated=True)
    assert (await asked(far, "POST", "/api/v1/jobs", JOB, JSON)).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/api/v1",
        "/api/v1/jobs/",
        "/api/v1//jobs",
        "/api/v1/jobs/a/b",
        "/jobs",
        "/api/v1/jobs/a/cancel/x",
    ],
)
async def test_an_unknown_path_is_not_found(far: FarEnd, path: str) -> None:
    reply = await asked(far, "GET", path)
    assert reply.status == 404
    assert reply.problem["code"] == "not-found"


async def test_a_wrong_method_is_told_the_right_ones(far: FarEnd) -> None:
    reply = await asked(far, "DELETE", "/api/v1/jobs")
    assert reply.status == 405
    assert reply.headers["allow"] == "GET, POST"
    assert "GET or POST" in reply.problem["remedy"]


async def test_head_is_get_without_its_body(far: FarEnd) -> None:
    whole = await asked(far, "GET", "/api/v1/overview")
    head = await asked(far, "HEAD", "/api/v1/overview")
    assert head.status == 200
    assert head.body == b""
    assert head.headers == whole.headers
    assert (await asked(far, "HEAD", "/api/v1/events/stream")).status == 405


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
)
async def test_only_json_is_read(far: FarEnd, kind: str) -> None:
    headers = [("content-type", kind)] if kind else []
    reply = await asked(far, "POST", "/api/v1/jobs", JOB, *headers)
    assert reply.status == 415
    assert reply.problem["where"] == "Content-Type"
    assert not far.arrived
    form = await asked(far, "POST", "/api/v1/jobs/1/cancel", b"", ("content-type", "text/plain"))
    assert form.status == 415


async def test_json_may_tell_its_characters(far: FarEnd) -> None:
    kind = ("content-type", "Application/JSON; charset=utf-8")
    assert (await asked(far, "POST", "/api/v1/jobs", JOB, kind)).status == 201


async def test_a_body_is_optional_where_nothing_is_needed(far: FarEnd) -> None:
    assert (await asked(far, "POST", "/api/v1/jobs/17/cancel")).status == 200
    missing = await asked(far, "POST", "/api/v1/jobs")
    assert missing.status == 400
    assert missing.problem["where"] == "body"


@pytest.mark.parametrize("told", ["x", "-1", "1e3", "\u0663"])
async def test_a_length_that_is_no_number_is_refused(far: FarEnd, told: str) -> None:
    if not told.isascii():
        told = told.encode().decode("latin-1")
    reply = await asked(far, "POST", "/api/v1/jobs", b"", JSON, ("content-length", told))
    assert reply.status == 400
    assert reply.problem["where"] == "Content-Length"


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("limit=1&limit=2", "limit"),
        ("limit=x", "limit"),
        ("colour=1", "colour"),
        ("a=%ff", "query"),
    ],
)
async def test_a_wrong_query_is_named(far: FarEnd, query: str, where: str) -> None:
    reply = await asked(far, "GET", f"/api/v1/jobs?{query}")
    assert reply.status == 400
    assert reply.problem["where"] == where
    assert not far.arrived


async def test_a_repeated_key_is_no_key(far: FarEnd) -> None:
    key = ("idempotency-key", "k")
    reply = await asked(far, "POST", "/api/v1/jobs", JOB, JSON, key, key)
    assert reply.status == 400
    assert reply.problem["where"] == "Idempotency-Key"


async def test_a_large_body_is_read_in_a_thread_with_the_same_result(far: FarEnd) -> None:
    job = json.loads(JOB)
    job["stages"][0]["over"] = list(range(40_000))
    assert (await asked(far, "POST", "/api/v1/jobs", json.dumps(job).encode(), JSON)).status == 201
    job["stages"][0]["retries"] = "x"
    reply = await asked(far, "POST", "/api/v1/jobs", json.dumps(job).encode(), JSON)
    assert reply.problem["where"] == "stages[0].retries"


async def test_nobody_may_do_anything_by_default(far: FarEnd) -> None:
    for route in native_dialect().routes:
        reply = await asked(far, route.method, route.path, principal=None)
        assert reply.status == 403, route.name
    assert not far.arrived


@pytest.mark.parametrize("held", [Role.VIEWER, Role.WORKER])
async def test_a_role_opens_its_routes_alone(far: FarEnd, held: Role) -> None:
    somebody = Principal("somebody", held)
    for route in native_dialect().routes:
        if route.stream:
            continue
        reply = await asked(far, route.method, route.path, principal=somebody)
        assert (reply.status == 403) == (route.role not in (held, Role.ANYONE)), route.name


async def test_an_authoriser_decides_when_nobody_stands_in_front(far: FarEnd) -> None:
    class Strict:
        def authorise(self, scope_type: str, route: str, headers: Any, client: str) -> Principal:
            assert (scope_type, route, client) == ("http", "GetOverview", "127.0.0.1")
            if headers.get("authorization") != "Bearer t":
                raise Unauthenticated("no token", where="Authorization")
            return OPERATOR

    app = http_app(far, [native_dialect()], Strict())
    reply = await asked(far, "GET", "/api/v1/overview", app=app, principal=None)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    token = ("authorization", "Bearer t")
    again = await asked(far, "GET", "/api/v1/overview", b"", token, app=app, principal=None)
    assert again.status == 200


async def test_it_serves_where_it_is_mounted(far: FarEnd) -> None:
    assert (await asked(far, "GET", "/api/v1/overview", root="/farm")).status == 200


def test_a_route_without_a_row_stops_the_start(far: FarEnd) -> None:
    dialect = native_dialect()
    whole = policy_for([dialect])
    http_app(far, [dialect], policy=whole)
    for missing in whole.rows:
        rows = [row for row in whole.rows if row is not missing]
        with pytest.raises(Defect, match=missing.route):
            http_app(far, [dialect], policy=Policy(rows))


def test_two_routes_at_one_place_stop_the_start(far: FarEnd) -> None:
    dialect = native_dialect()
    twice = attrs.evolve(dialect, routes=(*dialect.routes, dialect.routes[0]))
    with pytest.raises(Defect, match="two routes"):
        http_app(far, [twice])


async def test_a_bug_is_told_without_its_inside_and_raised(far: FarEnd) -> None:
    def fail(_request: Any, _answer: Any) -> WireResponse:
        raise ValueError("the inside")

    dialect = native_dialect()
    bad = Route("Bad", "GET", "/bad", lambda _r: GetOverview(), fail, Role.VIEWER)
    app = http_app(far, [attrs.evolve(dialect, routes=(bad,))])
    peer = Peer("GET", "/bad")
    with pytest.raises(ValueError, match="the inside"):
        await app(peer.scope, peer.receive, peer.send)
    assert peer.reply.status == 500
    assert b"inside" not in peer.reply.body


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
async def test_want_of_memory_is_no_bug(far: FarEnd, error: Exception) -> None:
    def fail(_request: Any, _answer: Any) -> WireResponse:
        raise error

    bad = Route("Bad", "GET", "/bad", lambda _r: GetOverview(), fail, Role.VIEWER)
    app = http_app(far, [attrs.evolve(native_dialect(), routes=(bad,))])
    reply = await asked(far, "GET", "/bad", app=app)
    assert reply.status == 503
    assert reply.problem["code"] == "unavailable"
    assert "retry-after" in reply.headers


async def test_health_is_for_anyone(far: FarEnd) -> None:
    nobody = Principal("nobody", Role.ANYONE)
    reply = await asked(far, "GET", "/api/v1/health", principal=nobody)
    assert json.loads(reply.body)["status"] == "ok"
    document = await asked(far, "GET", "/api/v1/openapi.json", principal=nobody)
    assert json.loads(document.body)["openapi"].startswith("3.1")
