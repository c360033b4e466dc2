"""Who is not a worker can not act as it: twelve ways to try, at every route of workers, over HTTP and websocket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest

from orchestra.dialects.native_calls import Operation
from orchestra.dialects.native_table import OPERATIONS, WATCHES
from orchestra.dialects.wire import Role
from orchestra.errors import Conflict, Forbidden, OrchestraError, Unauthenticated
from orchestra.ports import Asker, LogChunk, OrderSeen, WatchOrders
from orchestra.statemachine.commands import (
    JoinWorker,
    PauseWorker,
    ResumeWorker,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.lifecycles import WorkerStatus
from orchestra.statemachine.queries import ListWorkers
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.transports.auth import Principal
from orchestra.transports.connect import connect
from orchestra.transports.token_changes import add_token, remove_token
from orchestra.transports.tokens import draw_token
from tests.transports.impostors import ASKS, OURS, World, introduction, passed, world_at

pytestmark = pytest.mark.anyio

SCHEMES = pytest.mark.parametrize("scheme", ["http", "ws"])
PATIENCE_S = 30.0


def test_there_is_something_to_ask_at_every_route_of_workers() -> None:
    routes = [*OPERATIONS, *WATCHES]
    assert {each.input.cls for each in routes if each.role is Role.WORKER} == set(ASKS)


def given(name: str) -> Callable[[World], str]:
    return lambda world: world.tokens[name]


def of_another_server(_: World) -> str:
    return draw_token().reveal()


def taken_out(world: World) -> str:
    token = add_token(world.path, "a2", Role.WORKER, OURS).reveal()
    remove_token(world.path, "a2")
    return token


def bound_to_another_since(world: World) -> str:
    token = add_token(world.path, "a2", Role.WORKER, OURS).reveal()
    world.rewrite("a2", worker="render-2")
    return token


def called_as_the_worker(world: World) -> str:
    return add_token(world.path, OURS, Role.WORKER).reveal()


def for_a_name_that_looks_alike(world: World) -> str:
    return add_token(world.path, "alike", Role.WORKER, OURS.title()).reveal()


def called_as_its_token(world: World) -> str:
    """Written by hand: the command refuses a second one of the same name."""
    token = add_token(world.path, "second", Role.WORKER, "render-2").reveal()
    world.rewrite("second", name="a")
    return token


TOKENS: dict[str, Callable[[World], str]] = {
    "bound to another": given("b"),
    "bound to none": given("free"),
    "an operator's": given("operator"),
    "a viewer's": given("viewer"),
    "none": lambda _: "",
    "of another server": of_another_server,
    "taken out": taken_out,
    "bound to another since": bound_to_another_since,
    "called as the worker": called_as_the_worker,
    "for a name that looks alike": for_a_name_that_looks_alike,
    "called as its token": called_as_its_token,
    "there before the name was bound": given("free"),
}
BY_OTHERS = {"a viewer's", "none", "of another server", "taken out"}
"""Cases that are refused before anybody asks for whom they act."""

CASES = pytest.mark.parametrize("case", list(TOKENS))


@asynccontextmanager
async def impostor(world: World, case: str, scheme: str, token: str) -> AsyncIterator[Asker]:
    """Somebody with the token of a case, connected."""
    bound_late = case == "there before the name was bound"
    if bound_late:
        world.rewrite("a", worker="")
    async with connect(f"{scheme}://{world.url}", token=token) as asker:
        if bound_late:
            # The connection stands, and is answered what it is refused once the name is bound.
            await asker.ask(Heartbeat(world.worker_id, 1))
            world.rewrite("a", worker=OURS)
        yield asker


async def refusals(world: World, case: str, scheme: str) -> AsyncIterator[tuple[type[Any], Any]]:
    """Everything tried with the token of a case, each over a connection of its own: why it was refused, or None."""
    token = TOKENS[case](world)
    for kind, ask in ASKS.items():
        refusal: OrchestraError | None
        try:
            async with impostor(world, case, scheme, token) as asker:
                refusal = await passed(asker, ask(world))
        except Unauthenticated as error:
            refusal = error
        yield kind, refusal


@SCHEMES
@CASES
async def test_nobody_else_acts_as_a_worker_whose_name_is_bound(
    case: str, scheme: str, tmp_path: Path
) -> None:
    async with world_at(tmp_path) as world:
        before = await world.looks()
        async for kind, refusal in refusals(world, case, scheme):
            assert refusal is not None, kind
            assert await world.looks() == before, kind
            if case not in BY_OTHERS:
                assert isinstance(refusal, Forbidden), kind
                assert refusal.where == ("name" if kind is JoinWorker else "worker_id")
                assert refusal.remedy
        async with world.asker("a", scheme) as asker:
            assert (await asker.ask(Heartbeat(world.worker_id, 1))).known
            for kind, ask in ASKS.items():
                assert await passed(asker, ask(world)) is None, kind


@SCHEMES
@CASES
async def test_without_the_check_they_do(
    case: str, scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what is refused above is refused by this check alone, or by one that stands before it."""
    monkeypatch.setattr(Principal, "check_worker", lambda *_: None)
    async with world_at(tmp_path) as world:
        tried = [each async for each in refusals(world, case, scheme)]
    taken = {kind for kind, refusal in tried if refusal is None}
    assert taken == (set() if case in BY_OTHERS else set(ASKS))


def test_there_are_twelve_cases() -> None:
    assert len(TOKENS) == 12
    assert set(TOKENS) > BY_OTHERS


async def test_on_the_wire_it_is_403_and_says_what_to_do(tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        told: dict[str, tuple[str, str]] = {}
        for operation in OPERATIONS:
            if operation.role is Role.WORKER:
                told[operation.name] = await _refused(world, operation)
        problem = await _stream_refused(world)
    assert set(told) == {kind.__name__ for kind in ASKS} - {"WatchOrders"}
    assert {detail for detail, _ in told.values()} == {
        "the worker 'render-1' has a token of its own, and this is another"
    }
    assert {remedy for _, remedy in told.values()} == {
        "use that worker's own token, or another name"
    }
    assert problem["status"] == 403


async def _refused(world: World, operation: Operation) -> tuple[str, str]:
    call = operation.call(ASKS[operation.input.cls](world))
    headers = {
        "authorization": f"Bearer {world.tokens['free']}",
        "content-type": "application/json",
    }
    async with httpx.AsyncClient(base_url=f"http://{world.url}", headers=headers) as http:
        reply = await http.request(call.method, call.target, content=call.body)
    assert reply.status_code == 403, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem = reply.json()
    return problem["detail"], problem["remedy"]


async def _stream_refused(world: World) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {world.tokens['free']}"}
    path = f"/api/v1/workers/{world.worker_id}/orders?incarnation=1"
    async with httpx.AsyncClient(base_url=f"http://{world.url}", headers=headers) as http:
        return dict(json.loads((await http.get(path)).content))


@SCHEMES
async def test_with_an_id_of_ones_own_nothing_of_anothers_is_had(
    scheme: str, tmp_path: Path
) -> None:
    """A worker names attempts too: those of another are neither given to it nor changed by it."""
    async with world_at(tmp_path) as world, world.asker("b", scheme) as asker:
        theirs = (world.attempt_id,)
        joined = await asker.ask(introduction("render-2", "theirs", theirs))
        before = await world.looks()
        assert (joined.orders, joined.foreign) == ((), theirs)
        mine = joined.worker_id, joined.incarnation
        beat = await asker.ask(Heartbeat(*mine, theirs))
        assert (beat.orders, beat.foreign) == ((), theirs)
        forged = AttemptReport(world.attempt_id, Happening.COMPLETED, b'"forged"')
        answered = await asker.ask(AttemptsReported(*mine, (forged,)))
        assert answered.ignored == ("the attempt is not this worker's",)
        with pytest.raises(Conflict):
            await asker.append_log(*mine, [LogChunk(world.attempt_id, "stdout", 0, b"forged")])
        assert await world.looks() == before


@SCHEMES
async def test_an_id_that_nobody_has_is_answered_as_ever(scheme: str, tmp_path: Path) -> None:
    """Over a new data file a worker is told to join again, with whichever token."""
    async with world_at(tmp_path) as world:
        for name in ("a", "b", "free"):
            async with world.asker(name, scheme) as asker:
                beat = await asker.ask(Heartbeat("0000000000000000000000000", 1))
                assert (beat.known, beat.remedy) == (False, "join")


@SCHEMES
async def test_a_name_that_no_token_is_bound_to_is_open_to_those_that_are_bound_to_none(
    scheme: str, tmp_path: Path
) -> None:
    async with world_at(tmp_path) as world:
        for name in ("free", "operator"):
            async with world.asker(name, scheme) as asker:
                joined = await asker.ask(introduction("render-9", name))
                assert (await asker.ask(Heartbeat(joined.worker_id, joined.incarnation))).known
        async with world.asker("b", scheme) as asker:
            refusal = await passed(asker, introduction("render-9", "theirs"))
            assert isinstance(refusal, Forbidden)
            assert "render-2" in str(refusal)


@SCHEMES
async def test_an_operator_stops_a_bound_worker_as_an_operator(scheme: str, tmp_path: Path) -> None:
    async with world_at(tmp_path) as world, world.asker("operator", scheme) as asker:
        assert (await asker.ask(PauseWorker(world.worker_id))).paused
        assert not (await asker.ask(ResumeWorker(world.worker_id))).paused


@SCHEMES
async def test_a_token_is_rotated_while_its_worker_works(scheme: str, tmp_path: Path) -> None:
    async with world_at(tmp_path) as world:
        fresh = add_token(world.path, "a2", Role.WORKER, OURS).reveal()
        url = f"{scheme}://{world.url}"
        async with connect(url, token=fresh) as asker:
            assert (await asker.ask(Heartbeat(world.worker_id, 1))).known
            remove_token(world.path, "a")
            assert (await asker.ask(Heartbeat(world.worker_id, 1))).known
        with pytest.raises(Unauthenticated):
            async with world.asker("a", scheme) as old:
                await old.ask(Heartbeat(world.worker_id, 1))
        async with world.asker("free", scheme) as other:
            assert await passed(other, ASKS[JoinWorker](world)) is not None


def rebound(world: World) -> None:
    """Another worker's token is now the only one for the name."""
    add_token(world.path, "late", Role.WORKER, "render-9")


def revoked(world: World) -> None:
    remove_token(world.path, "free")


@SCHEMES
@pytest.mark.parametrize("change", [rebound, revoked])
async def test_a_stream_of_orders_that_is_open_carries_none_to_whom_they_are_no_more(
    change: Callable[[World], None], scheme: str, tmp_path: Path
) -> None:
    """Orders have arguments and environments in them."""
    job = SubmitJob("more", (StageDraft("render", "render"),))
    async with world_at(tmp_path) as world, world.asker("operator") as operator:
        async with world.asker("free", scheme) as asker:
            joined = await asker.ask(attrs.evolve(introduction("render-9", "s"), slots=2))
            async with asker.watch(WatchOrders(joined.worker_id, joined.incarnation)) as pushes:
                await operator.ask(job)
                with anyio.fail_after(PATIENCE_S):
                    assert isinstance(await anext(pushes), OrderSeen), "the control"
                change(world)
                await operator.ask(job)
                with anyio.fail_after(PATIENCE_S):
                    assert [push async for push in pushes] == []
        workers = (await operator.answer(ListWorkers())).items
        assert {each.name: each.status for each in workers}["render-9"] is WorkerStatus.ONLINE
