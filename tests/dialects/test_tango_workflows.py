"""Workflows of the Project Manager: given, measured, wrong, and by hand; and its words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orchestra.config import DialectPort
from orchestra.dialects.tango_options import Workflow, read_options
from orchestra.dialects.tango_pipelines import STAGE_WORD
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Malformed
from orchestra.statemachine.lifecycles import TASK, TASK_FINAL, TaskStatus
from tests.dialects.tango_office import STAGES, TABLE, office

pytestmark = pytest.mark.anyio


# workflows ----------------------------------------------------------------------------------------------------------


async def test_set_workflow_as_measured() -> None:
    async with office() as pm:
        reply = await pm.set_workflow(project_id=2, workflow=["autonn", "code_gen", "imagedeploy"])
        rows = reply.json()["workflow"]
        assert reply.json()["status"] == 200
        assert [(row["workflow_name"], row["order"], row["project_id"]) for row in rows] == [
            ("autonn", 0, 2),
            ("code_gen", 1, 2),
            ("ondevice_deploy", 2, 2),
        ]
        await pm.start("autonn", "user_id=anybody&project_id=2")
        words = await pm.words("user_id=anybody&project_id=2")
        assert list(words) == ["autonn", "code_gen", "ondevice_deploy"]
        # Another project has the usual one.
        await pm.start()
        assert list(await pm.words()) == list(STAGES)


async def test_a_workflow_of_branches() -> None:
    """Our addition: what does not wait for one another runs side by side."""
    table = {"bms": [], "autonn": ["bms"], "vis2code": ["bms"], "code_gen": ["autonn", "vis2code"]}
    async with office() as pm:
        reply = await pm.set_workflow(project_id="1", user_id="kyunghee", workflow=table)
        assert reply.status_code == 200
        await pm.start()
        await pm.done("bms")
        assert {order.stage for order in await pm.orders()} == {"autonn", "vis2code"}
        await pm.done("vis2code")
        assert {order.stage for order in await pm.orders()} == {"autonn"}
        await pm.done("autonn")
        assert {order.stage for order in await pm.orders()} == {"code_gen"}
        await pm.done("code_gen")
        assert (await pm.api("status_request"))["container_status"] == "completed"
        # From the middle on: only what comes after it.
        await pm.start("vis2code")
        assert set(await pm.words()) == {"vis2code", "code_gen"}


async def test_by_hand_a_container_runs_alone() -> None:
    async with office({**TABLE, "mode": "manual"}) as pm:
        await pm.start("autonn")
        assert await pm.words() == {"autonn": "ready"}
        await pm.done("autonn")
        assert await pm.orders() == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "1 to 100"),
        (["nosuch"], "nosuch is no member"),
        (["bms", "bms"], "twice"),
        (["code_gen", "codeGen"], "twice"),
        ([1], "this is no member"),
        ("bms", "a list or a table"),
        (None, "a list or a table"),
        ({"bms": ["autonn"], "autonn": ["bms"]}, "wait for one another"),
        ({"bms": ["bms"]}, "wait for one another"),
        ({"bms": ["autonn"]}, "no part of it"),
        ({"bms": "autonn"}, "a list of containers"),
    ],
)
async def test_workflows_that_are_none(given: object, told: str) -> None:
    async with office() as pm:
        reply = await pm.set_workflow(project_id=1, workflow=given)
        assert reply.status_code == 400
        assert told in reply.json()["message"]


def test_the_workflows_of_the_configuration() -> None:
    projects = {"kyunghee/7": ["autonn"], "8": {"bms": [], "autonn": ["bms"]}}
    options = read_options(DialectPort("tango", None, {**TABLE, "projects": projects}))
    found: Workflow = options.projects["kyunghee", "7"]
    assert dict(found) == {"autonn": ()}
    assert dict(options.projects["", "8"]) == {"bms": (), "autonn": ("bms",)}
    assert dict(options.workflow)["code_gen"] == ("autonn",)


def test_how_a_member_is_asked_when_nothing_else_is_said() -> None:
    """Every 2 s, as the guide has it, and 5 s for each call, as its programs wait."""
    table = {
        "members": {"a": "h:1", "b": {"address": "h:2", "heartbeat": "1s"}},
        "call_limit": "3s",
    }
    usual = read_options(DialectPort("tango", None, {"members": {"a": "h:1"}})).places["a"]
    assert (usual.heartbeat_ms, usual.call_ms) == (2_000, 5_000)
    assert (usual.resumes, usual.restarts, usual.limit_ms) == (0, 0, None)
    own = read_options(DialectPort("tango", None, table)).places
    assert {name: (each.heartbeat_ms, each.call_ms) for name, each in own.items()} == {
        "a": (2_000, 3_000),
        "b": (1_000, 3_000),
    }


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "members: no member"),
        ({"members": {"a": {}}}, "its address is missing"),
        ({"members": {"a": "no"}}, "not HOST:PORT"),
        ({"members": {"a": 1}}, "it is a table"),
        ({"members": {"a b": "h:1"}}, "visible characters"),
        ({"members": {"a": {"address": "h:1", "heartbeet": "2s"}}}, "did you mean heartbeat"),
        ({"members": {"a": {"address": "h:1", "heartbeat": "0s"}}}, "10ms to 24h"),
        ({"members": {"a": {"address": "h:1", "resumes": -1}}}, "whole number"),
        ({"members": {"a": {"address": "h:1", "slots": 0}}}, "1 at least"),
        ({"members": {"a": {"address": "h:1", "secret": "short"}}}, "16 visible"),
        ({"members": {"a": {"address": "h:1", "output": "x"}}}, "absolute path"),
        ({"members": {"a": {"address": "h:1", "aliases": "b"}}}, "list of texts"),
        ({"members": {"a": "h:1"}, "mode": "automatic"}, "auto or manual"),
        ({"members": {"a": "h:1"}, "workflw": []}, "did you mean workflow"),
        ({"members": {"a": "h:1"}, "projects": {"x": ["b"]}}, "projects.x: b is no member"),
    ],
)
def test_options_that_are_wrong_are_named(table: Mapping[str, object], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        read_options(DialectPort("tango", None, dict(table)))


# the contract, words, and reports that are not true -------------------------------------------------------------------


def test_the_words_are_a_total_mapping() -> None:
    assert set(STAGE_WORD) == set(TaskStatus)
    ends = {MemberWord.STOPPED, MemberWord.FAILED, MemberWord.COMPLETED}
    assert {status for status, word in STAGE_WORD.items() if word in ends} == set(TASK_FINAL)
    # Every edge of the core's task table is an edge of the guide's diagram, a step over some of them, or none.
    order = ["ready", "started", "running"]
    for row in TASK.rows:
        if row.source in TASK_FINAL or row.target is TaskStatus.WAITING:
            continue
        target = STAGE_WORD[TaskStatus(row.target)]
        assert target in ends or str(target) in order
