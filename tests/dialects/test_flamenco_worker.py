"""A worker of Flamenco in its core: which programs it runs, its words, and what it answers when it is called (2015-02)."""

from __future__ import annotations

import attrs
import pytest

from orchestra.config import Address, DialectPort
from orchestra.dialects.flamenco_worker import flamenco_worker
from orchestra.dialects.flamenco_worker_options import read_options
from orchestra.dialects.flamenco_worker_programs import Programs, read_command
from orchestra.dialects.flamenco_worker_reports import is_stop
from orchestra.dialects.flamenco_worker_runs import (
    END_WORD,
    OVERLAP_BYTES,
    WHOLE_LOG_BYTES,
    Given,
    Run,
)
from orchestra.dialects.wire import Dialect
from orchestra.errors import Forbidden, Malformed
from orchestra.statemachine.lifecycles import TASK_FINAL, TaskStatus
from orchestra.statemachine.records import Rung
from orchestra.statemachine.reports import Happening
from orchestra.testing.check_dialect import CHECKS, Call, Check, DialectBench
from tests.dialects.flamenco_kit import StandingClock
from tests.dialects.flamenco_worker_kit import (
    MANAGER,
    FarManager,
    machine,
    surroundings,
)

pytestmark = pytest.mark.anyio

# what may run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (["-b", "/srv/a.blend", "-o", "/srv/out/####", "-s", "1"], True),
        (["-b", "/work/22/files//a.blend"], True),
        (["--disable-autoexec", "relative.blend"], True),
        (["--python", "/code/settings.py"], True),
        (["-P", "/srv/settings.py"], False),
        (["--python", "settings.py"], False),
        (["--python-expr", "import os"], False),
        (["--python-console"], False),
        (["--python-text", "x"], False),
        (["--addons", "x"], False),
        (["--enable-autoexec"], False),
        (["-y"], False),
        (["-c", "rm"], False),
        (["/etc/passwd"], False),
        (["//../../etc/passwd"], False),
        (["/srv/../etc/passwd"], False),
        (["../../etc/passwd"], False),
        (["--x=../../etc"], False),
        (["C:\\windows\\x"], False),
        (["/srvx/a"], False),
    ],
)
def test_arguments_name_no_code_and_lead_nowhere_else(words: list[str], allowed: bool) -> None:
    programs = Programs({"b": "/usr/bin/blender"}, ("/srv",), ("/code",))
    if allowed:
        programs.check(words, "/work/22")
        return
    with pytest.raises(Forbidden):
        programs.check(words, "/work/22")


def test_what_opens_more_is_said_by_the_operator() -> None:
    Programs(scripts=("/code",)).check(["--python", "/code/a.py", "/anywhere/a.blend"])
    Programs(autoexec=True).check(["--enable-autoexec"])
    with pytest.raises(Forbidden, match="runs code"):
        Programs().check(["--python", "/code/a.py"])


def test_programs_are_known_by_name_and_an_empty_table_runs_nothing() -> None:
    programs = Programs({"simple_blender_render": "/usr/bin/blender", "/opt/b": "/usr/bin/blender"})
    assert programs.find("simple_blender_render") == "/usr/bin/blender"
    assert programs.find("/opt/b") == "/usr/bin/blender"
    assert programs.find("unknown", "/usr/bin/blender") == "/usr/bin/blender"
    for refused in (programs.find, Programs().find):
        for name in ("/bin/sh", "", "/usr/bin/blender/../../../bin/sh", "blender"):
            with pytest.raises(Forbidden):
                refused(name)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '[""]', "[1]", '["a", null]', '["a\\u0000"]', "["]
)
def test_a_command_is_a_list_of_texts(text: str) -> None:
    with pytest.raises(Malformed):
        read_command(text)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "manager"),
        ({"manager": "h"}, "manager"),
        ({"manager": "https://h:1"}, "manager"),
        ({"manager": "h:1"}, "folder"),
        ({"manager": "h:1", "folder": "work"}, "folder"),
        ({"manager": "h:1", "protocol": "both"}, "protocol"),
        ({"manager": "h:1", "protocol": "push"}, "port"),
        ({"manager": "h:1", "folder": "/w", "roots": ["srv"]}, "roots"),
        ({"manager": "h:1", "folder": "/w", "programs": ["blender"]}, "programs"),
        ({"manager": "h:1", "folder": "/w", "autoexec": 1}, "autoexec"),
        ({"manager": "h:1", "folder": "/w", "folders": "/w"}, "folders"),
        ({"manager": "h:1", "folder": "/w", "port": 0}, "port"),
    ],
)
def test_options_that_are_wrong_are_named(options: dict[str, object], where: str) -> None:
    with pytest.raises(Malformed) as told:
        read_options(DialectPort("flamenco-worker", None, options))
    assert told.value.where == f"dialects.flamenco-worker.{where}"


# words ----------------------------------------------------------------------------------------------------------------


def test_every_status_of_a_task_has_a_word_for_its_end_or_none() -> None:
    assert set(END_WORD) == set(TaskStatus)
    assert {status for status, word in END_WORD.items() if word is not None} == set(TASK_FINAL)


def test_which_answers_end_a_task() -> None:
    stops = [
        status for status in (200, 204, 400, 403, 404, 408, 409, 429, 500, 503) if is_stop(status)
    ]
    assert stops == [200, 400, 403, 404, 409]
    assert not is_stop(None)


def test_of_a_long_log_the_new_lines_are_sent_behind_the_last_old_ones() -> None:
    run = Run(Given("1", "1", "none", ()), 0, log=b"a" * WHOLE_LOG_BYTES)
    assert run.log_text() == ("a" * WHOLE_LOG_BYTES, WHOLE_LOG_BYTES)
    run.sent = WHOLE_LOG_BYTES
    run.log += "é".encode() * 200
    run.sent += 201  # in the middle of a sign
    text, size = run.log_text()
    assert size == len(run.log)
    assert text == "a" * (OVERLAP_BYTES - 201) + "é" * 200
    assert run.log.decode().endswith(text)


# push -----------------------------------------------------------------------------------------------------------------


async def test_a_called_worker_runs_one_task_at_a_time_and_tells_its_end() -> None:
    async with machine("push") as ours:
        await ours.passes()
        assert dict(ours.manager.calls[-1].form)["port"] == "5000"
        assert await ours.executes(12, "shell", "/srv/a.sh") == 200
        assert await ours.executes(12, "shell", "/srv/a.sh") == 200, "sent again"
        assert await ours.executes(13, "shell", "/srv/a.sh") == 500
        assert len(await ours.jobs()) == 1
        await ours.tells(Happening.RUNNING, b"Fra:7 Mem:1M | Sample 1/8\n")
        told = (await ours.asked("GET", "/info")).json()
        assert (told["status"], told["log"][:5], told["hostname"]) == (
            "rendering",
            "Fra:7",
            "render-1",
        )
        assert (await ours.asked("GET", "/pid")).json() == {"pid": 4_321}
        await ours.tells(Happening.FAILED, message="exited with 3")
        assert (await ours.asked("GET", "/info")).json()["status"] == "enabled"
        await ours.passes()
        end = ours.manager.reports()[-1]
        assert (end["status"], end["log"].splitlines()[-1]) == ("failed", "exited with 3")
        assert (await ours.asked("GET", "/info")).json()["log"] is None


async def test_a_task_may_come_while_the_former_one_is_being_killed() -> None:
    """A manager of 2015 takes the worker for free as soon as it has asked for the kill, and looks at no answer."""
    async with machine("push") as ours:
        assert await ours.executes(12, "shell", "/srv/a.sh") == 200
        await ours.tells(Happening.RUNNING)
        assert (await ours.asked("DELETE", "/kill")).status_code == 204
        assert await ours.executes(13, "shell", "/srv/b.sh") == 200
        orders = await ours.orders()
        assert sorted(order.rung is Rung.NONE for order in orders) == [False, True]
        assert await ours.executes(14, "shell", "/srv/b.sh") == 500
        await ours.tells(Happening.STOPPED)
        await ours.passes()
        ends = {call.path: dict(call.form)["status"] for call in ours.manager.calls if call.form}
        assert ends["/tasks/12"] == "aborted"


async def test_only_the_manager_has_programs_run_and_killed() -> None:
    async with machine("push", callers=["10.0.0.2"]) as ours:
        assert await ours.executes(12, "shell", "/srv/a.sh", ip="10.0.0.9") == 403
        assert (await ours.asked("DELETE", "/kill", "10.0.0.9")).status_code == 403
        assert not await ours.jobs()
        assert (await ours.asked("GET", "/info", "10.0.0.9")).status_code == 200
        assert await ours.executes(12, "shell", "/srv/a.sh", ip="10.0.0.2") == 200


async def test_a_worker_that_is_not_called_any_more_registers_again() -> None:
    async with machine("push") as ours:
        await ours.passes()
        assert len(ours.manager.calls) == 2
        await ours.passes(30)
        await ours.asked("GET", "/info")
        await ours.passes(50)
        assert len(ours.manager.calls) == 2
        await ours.passes(11)
        assert ours.manager.calls[-1].path == "/workers"


def called_worker() -> Dialect:
    """All but its two addresses that answer with the original's own 500 and 503."""
    table: dict[str, object] = {"manager": f"{MANAGER}:7777", "protocol": "push"}
    around = surroundings(StandingClock(), FarManager())
    port = DialectPort("flamenco-worker", Address("127.0.0.1", 5_000), table)
    made = flamenco_worker(port, around)
    routes = tuple(route for route in made.routes if route.name not in ("Pid", "Command"))
    return attrs.evolve(made, routes=routes)


BENCH = DialectBench(
    called_worker,
    (
        Call("GET", "/"),
        Call("GET", "/info"),
        Call("GET", "/run_info"),
        Call("POST", "/execute_task", b'{"task_id": "1", "task_command": "[\\"shell\\"]"}'),
        Call("DELETE", "/kill"),
        Call("DELETE", "/kill/17"),
    ),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_worker_keeps_the_contract_of_dialects(check: Check) -> None:
    await check(BENCH)
