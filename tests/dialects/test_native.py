"""The native dialect without a transport: each operation's words, in both directions, and every way to get them wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from orchestra.dialects.asks import Keyed
from orchestra.dialects.native import native_dialect
from orchestra.dialects.native_calls import Operation, WireCall
from orchestra.dialects.native_openapi import document
from orchestra.dialects.native_problems import STATUS, problem_of, read_problem, refuse
from orchestra.dialects.native_table import BY_CLASS, OPERATIONS, WATCHES
from orchestra.dialects.wire import Role, WireRequest
from orchestra.errors import (
    Defect,
    LimitReached,
    Malformed,
    OrchestraError,
    StoreFailed,
    Unauthenticated,
    Unavailable,
)
from orchestra.statemachine import commands, queries, reports
from orchestra.statemachine.commands import CancelJob, Command, StageDraft, SubmitJob, Tick
from orchestra.statemachine.queries import Query
from orchestra.statemachine.replies import ResultPage
from orchestra.testing.check_transport import ERRORS
from orchestra.testing.transport_samples import Samples, variants

ALL = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


def refusal(decode: Callable[[WireRequest], object], request: WireRequest) -> Malformed | None:
    try:
        decode(request)
    except Malformed as error:
        return error
    return None


def received(operation: Operation, call: WireCall, **headers: str) -> WireRequest:
    """The request that a server makes of what a client sends."""
    parts = urlsplit(call.target)
    template = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation.path)
    match = re.fullmatch(template, parts.path)
    assert match is not None
    return WireRequest(
        method=call.method,
        target=call.target,
        path={name: unquote(value) for name, value in match.groupdict().items()},
        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
        headers=headers,
        body=call.body or b"",
    )


def test_everything_that_can_be_asked_has_its_place() -> None:
    asked = {
        cls
        for module in (commands, queries, reports)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, (Command, Query)) and attrs.has(cls)
    }
    assert asked - {Tick} <= BY_CLASS.keys()
    assert Tick not in BY_CLASS


def test_names_and_places_are_unique() -> None:
    routes = native_dialect().routes
    assert len({route.name for route in routes}) == len(routes)
    assert len({(route.method, route.path) for route in routes}) == len(routes)
    assert all(isinstance(route.role, Role) for route in routes)


@ALL
def test_a_client_s_request_is_read_as_it_was_meant(operation: Operation) -> None:
    for asked in variants(operation.input.cls):
        assert operation.input.decode(received(operation, operation.call(asked))) == asked


@ALL
def test_a_frame_is_read_as_it_was_meant(operation: Operation) -> None:
    for asked in variants(operation.input.cls):
        assert operation.decode_frame(operation.input.codec.encode(asked), "") == asked


@ALL
def test_an_unknown_field_is_named(operation: Operation) -> None:
    asked = variants(operation.input.cls)[0]
    request = received(operation, operation.call(asked))
    if operation.method == "GET":
        wrong = attrs.evolve(request, query={**request.query, "colour": "red"})
    else:
        body = json.loads(request.body) | {"colour": "red"}
        wrong = attrs.evolve(request, body=json.dumps(body).encode())
    with pytest.raises(Malformed) as caught:
        operation.input.decode(wrong)
    assert caught.value.where == "colour"


@ALL
def test_a_field_of_the_wrong_type_is_named(operation: Operation) -> None:
    asked = variants(operation.input.cls)[0]
    request = received(operation, operation.call(asked))
    fields = dict(request.query) if operation.method == "GET" else json.loads(request.body)
    for name, value in fields.items():
        if operation.method == "GET":
            # In the address everything is text, so a text is never wrong.
            declared = next(f for f in attrs.fields(operation.input.cls) if f.name == name)
            if declared.type not in ("int", "bool"):
                continue
            wrong = attrs.evolve(request, query={**fields, name: "colour"})
        else:
            if isinstance(value, dict) and not isinstance(value.get("cpu"), (int, float)):
                continue
            bad: Any = {"wrong": []} if not isinstance(value, dict) else 7
            wrong = attrs.evolve(request, body=json.dumps({**fields, name: bad}).encode())
        with pytest.raises(Malformed) as caught:
            operation.input.decode(wrong)
        assert caught.value.where.startswith(name)


@ALL
def test_a_missing_field_is_named(operation: Operation) -> None:
    asked = variants(operation.input.cls)[0]
    request = received(operation, operation.call(asked))
    for field in attrs.fields(operation.input.cls):
        if field.default is not attrs.NOTHING or field.name in request.path:
            continue
        if operation.method == "GET":
            query = {k: v for k, v in request.query.items() if k != field.name}
            wrong = attrs.evolve(request, query=query)
        else:
            body = {k: v for k, v in json.loads(request.body).items() if k != field.name}
            wrong = attrs.evolve(request, body=json.dumps(body).encode())
        with pytest.raises(Malformed) as caught:
            operation.input.decode(wrong)
        assert caught.value.where == field.name


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "stages", "app", "over", "needs", "reports", "chunks"]), inner
        )
    ),
    max_leaves=12,
)


@given(data=st.data(), body=st.binary(max_size=80) | JSON.map(lambda v: json.dumps(v).encode()))
def test_any_body_at_any_route_is_read_or_refused(data: st.DataObject, body: bytes) -> None:
    operation = data.draw(st.sampled_from(OPERATIONS))
    asked = variants(operation.input.cls)[0]
    request = attrs.evolve(received(operation, operation.call(asked)), body=body)
    error = refusal(operation.input.decode, request)
    assert error is None or (error.where and problem_of(error).status == 400)


@given(data=st.data(), query=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3))
def test_any_query_at_any_route_is_read_or_refused(
    data: st.DataObject, query: dict[str, str]
) -> None:
    reading = [o.input for o in OPERATIONS if o.method == "GET"] + [w.input for w in WATCHES]
    taken = data.draw(st.sampled_from(reading))
    names = [field.name for field in attrs.fields(taken.cls)]
    named = data.draw(st.dictionaries(st.sampled_from([*names, "colour"]), st.text(max_size=24)))
    path = dict.fromkeys(names, "x")
    request = WireRequest("GET", "", path, {**query, **named}, {"last-event-id": "4"}, b"")
    error = refusal(taken.decode, request)
    assert error is None or error.where or "" in query


def submit(**stage: Any) -> Any:
    body = {"name": "j", "stages": [{"name": "s", "app": "a", **stage}]}
    request = WireRequest("POST", "/jobs", {}, {}, {}, json.dumps(body).encode())
    return BY_CLASS[SubmitJob].input.decode(request)


def test_friendly_forms_are_what_people_write() -> None:
    job = submit(
        template={"frame": 1},
        over=[1, {"a": None}, "x", None],
        needs={"cpu": "0.5", "gpu": 2, "memory": "2GiB"},
    )
    stage: StageDraft = job.stages[0]
    assert json.loads(stage.template) == {"frame": 1}
    assert stage.over == (b"1", b'{"a": null}', b'"x"', b"null")
    assert stage.needs == (("cpu", 500), ("gpu", 2_000), ("memory", 2 * 1024**3 * 1_000))
    assert submit(over={"start": 1, "stop": 4}).stages[0].over == commands.Span(1, 4, 1)


@pytest.mark.parametrize(
    ("stage", "where"),
    [
        ({"needs": {"cpu": -1}}, "stages[0].needs.cpu"),
        ({"needs": {"memory": 4}}, "stages[0].needs.memory"),
        ({"needs": {"a b": 1}}, "stages[0].needs"),
        ({"over": {"start": 1}}, "stages[0].over.stop"),
        ({"over": 3}, "stages[0].over"),
        ({"after": ["x", 3]}, "stages[0].after[1]"),
        ({"retrys": 3}, "stages[0].retrys"),
        ({"run_ms_max": "10m"}, "stages[0].run_ms_max"),
    ],
)
def test_a_mistake_deep_inside_is_found(stage: dict[str, Any], where: str) -> None:
    with pytest.raises(Malformed) as caught:
        submit(**stage)
    assert caught.value.where == where


def test_keys_come_in_a_header() -> None:
    operation = BY_CLASS[CancelJob]
    call = operation.call(CancelJob("17"))
    asked = operation.input.decode(received(operation, call, **{"idempotency-key": "k-1"}))
    assert asked == Keyed(CancelJob("17"), "k-1")
    for key in ("a b", "\u00e4", "!" * 201, "a\n"):
        with pytest.raises(Malformed) as caught:
            operation.input.decode(received(operation, call, **{"idempotency-key": key}))
        assert caught.value.where == "Idempotency-Key"


def test_a_result_of_null_is_a_result() -> None:
    output = BY_CLASS[queries.ListResults].output
    page = Samples(full=True).of(ResultPage)
    none, null = (
        attrs.evolve(page, items=(attrs.evolve(page.items[0], result=result),))
        for result in (None, b"null")
    )
    assert output.decode(output.encode(none)) == none
    assert output.decode(output.encode(null)) == null
    assert b'"result":null' in output.encode(null)
    assert b'"result"' not in output.encode(none)


def test_a_newer_server_may_tell_more() -> None:
    output = BY_CLASS[CancelJob].output
    heard = output.decode(b'{"job_id":"x","status":"cancelling","colour":"red"}')
    assert heard == commands.JobChanged("x", "cancelling")


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_a_problem_becomes_the_same_error_again(error: OrchestraError) -> None:
    response = refuse(error)
    again = read_problem(response.status, response.body)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert response.media_type == "application/problem+json"
    told = json.loads(response.body)
    assert {"type", "title", "status", "detail", "code"} <= told.keys()
    assert told["status"] == response.status


def test_statuses_and_their_fields() -> None:
    assert refuse(StoreFailed("full", full=True)).status == 507
    assert dict(refuse(Unauthenticated("no")).headers)["www-authenticate"].startswith("Bearer")
    assert dict(refuse(LimitReached("no", retry_after_ms=1_001)).headers)["retry-after"] == "2"
    assert dict(refuse(Unavailable("no")).headers)["retry-after"] == "1"
    told = json.loads(refuse(Defect("secret")).body)
    assert told["status"] == 500
    assert "secret" not in json.dumps(told)
    assert 422 not in STATUS.values()


def test_an_answer_from_something_on_the_way_is_no_answer() -> None:
    assert isinstance(read_problem(502, b"<html>bad gateway</html>"), Unavailable)
    assert isinstance(read_problem(401, b"no"), Unauthenticated)
    assert isinstance(read_problem(404, b'{"detail": 3}'), Unavailable)


def test_the_published_document_is_valid_and_complete() -> None:
    told = json.loads(json.dumps(document()))
    validate(told)
    published = {
        (method.upper(), path) for path, methods in told["paths"].items() for method in methods
    }
    assert published == {(route.method, route.path) for route in native_dialect().routes}
    assert told["security"] == [{"token": []}]
    submit_job = told["components"]["schemas"]["SubmitJob"]
    assert submit_job["additionalProperties"] is False
    assert submit_job["required"] == ["name", "stages"]
    assert told["paths"]["/api/v1/jobs"]["post"]["responses"].keys() >= {"200", "201", "400", "413"}
    assert "``" not in json.dumps(told)
