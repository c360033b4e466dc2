"""The table that says who may use which route, and who may not start without it."""

from __future__ import annotations

import pytest

from orchestra.dialects.wire import Dialect, Role, Route, WireRequest, WireResponse
from orchestra.errors import Defect
from orchestra.transports.door import refuse
from orchestra.transports.policy import (
    Policy,
    allows,
    check_mounted,
    http_row,
    policy_for,
    websocket_row,
)


def decode(request: WireRequest) -> object:
    return request


def encode(_: WireRequest, answer: object) -> WireResponse:
    return WireResponse(200, str(answer).encode())


DIALECT = Dialect(
    "plain",
    (
        Route("health", "GET", "/health", decode, encode, Role.ANYONE),
        Route("get-job", "GET", "/jobs/{job_id}", decode, encode, Role.VIEWER),
        Route("submit-job", "POST", "/jobs", decode, encode, Role.OPERATOR),
        Route("report", "POST", "/workers/{worker_id}/reports", decode, encode, Role.WORKER),
    ),
    refuse,
)

HELD = (Role.ANYONE, Role.WORKER, Role.VIEWER, Role.OPERATOR)


@pytest.mark.parametrize(
    ("needed", "opened_by"),
    [
        (Role.ANYONE, (True, True, True, True)),
        (Role.WORKER, (False, True, False, True)),
        (Role.VIEWER, (False, False, True, True)),
        (Role.OPERATOR, (False, False, False, True)),
    ],
)
def test_each_role_opens_what_it_must_and_no_more(
    needed: Role, opened_by: tuple[bool, ...]
) -> None:
    assert tuple(allows(held, needed) for held in HELD) == opened_by


def test_rows_come_from_the_routes_of_the_dialect() -> None:
    policy = policy_for([DIALECT], [websocket_row("session", "/session")])
    assert {row.route for row in policy.rows} == {
        "health",
        "get-job",
        "submit-job",
        "report",
        "session",
    }
    found = policy.row("http", "report")
    assert found is not None
    assert found.opens == {Role.WORKER, Role.OPERATOR}


@pytest.mark.parametrize(
    ("kind", "method", "path", "route"),
    [
        ("http", "GET", "/jobs/17", "get-job"),
        ("http", "HEAD", "/jobs/17", "get-job"),
        ("http", "POST", "/jobs", "submit-job"),
        ("http", "POST", "/jobs/17", None),
        ("http", "GET", "/jobs", None),
        ("http", "GET", "/jobs/17/", None),
        ("http", "GET", "/jobs/17/x", None),
        ("http", "GET", "/jobs/", None),
        ("http", "GET", "//jobs/17", None),
        ("http", "GET", "/x/../health", None),
        ("http", "GET", "/health\n", None),
        ("http", "GET", "/Health", None),
        ("http", "GET", "/session", None),
        ("websocket", "GET", "/session", "session"),
        ("websocket", "GET", "/health", None),
        ("http", "OPTIONS", "/jobs", None),
    ],
)
def test_a_path_falls_under_one_row_or_none(
    kind: str, method: str, path: str, route: str | None
) -> None:
    policy = policy_for([DIALECT], [websocket_row("session", "/session")])
    row = policy.match(kind, method, path)
    assert (row.route if row else None) == route


def test_a_route_without_a_row_stops_the_start() -> None:
    policy = policy_for([DIALECT])
    check_mounted(policy, [("http", "GET", "health"), ("http", "HEAD", "get-job")])
    for bare in (
        ("http", "GET", "metrics"),
        ("http", "DELETE", "get-job"),
        ("websocket", "GET", "health"),
    ):
        with pytest.raises(Defect, match="no row in the policy table"):
            check_mounted(policy, [("http", "GET", "health"), bare])


def test_a_route_has_one_row() -> None:
    with pytest.raises(Defect, match="share a scope type"):
        Policy(
            [
                http_row("GET", "health", "/health", Role.ANYONE),
                http_row("GET", "health", "/healthz", Role.OPERATOR),
            ]
        )
