"""After a stop, an end, a dead worker or a passed lease, no process of an attempt is alive."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import psutil
import pytest

from orchestra.engines.process import ProcessEngine
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order
from orchestra.testing.check_engine import Recorder, order_for
from tests.engines import hostile

pytestmark = pytest.mark.anyio

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)

NAMES = list(hostile.SCRIPTS)
LOOKS = 5
"""One look at the process table can miss a process that forks and exits while it is taken."""


@pytest.fixture
def mark() -> Iterator[str]:
    """A word in the command line of every process of the test; whatever is left of a failed test is ended here."""
    word = "mark-" + secrets.token_hex(8)
    yield word
    for process in hostile.alive(word):
        process.kill()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with ProcessEngine(tmp_path) as entered:
        yield entered


def script_order(script: str, mark: str) -> Order:
    literal = script.replace("{", "{{").replace("}", "}}")
    argv = [sys.executable, "-I", "-S", "-c", literal, mark]
    return order_for("process", json.dumps({"argv": argv}).encode())


def hostile_order(name: str, mark: str) -> Order:
    return script_order(hostile.script(name), mark)


async def begun(engine: ProcessEngine, order: Order) -> Recorder:
    sink = Recorder()
    await engine.start(order, sink)
    key = (order.attempt_id, "stdout")

    def told() -> bool:
        return b"ready" in sink.written.get(key, b"") or order.attempt_id in sink.ends

    await sink.until(told, "it is ready", 20)
    assert order.attempt_id not in sink.ends, sink.ends
    return sink


async def until_dead(mark: str, within_s: float) -> float:
    """How long it took until nothing with the mark was alive."""
    begin = time.monotonic()
    while hostile.alive(mark):
        assert time.monotonic() - begin < within_s, f"{hostile.alive(mark)} outlived {within_s} s"
        await anyio.sleep(0.02)
    return time.monotonic() - begin


@pytest.mark.parametrize("name", NAMES)
async def test_a_stop_leaves_nothing(engine: ProcessEngine, name: str, mark: str) -> None:
    order = hostile_order(name, mark)
    sink = await begun(engine, order)
    assert hostile.alive(mark) or name == "hops"  # which may pass by while the table is read
    await engine.stop(order.attempt_id, "term")
    with anyio.move_on_after(0.2):
        await sink.end_of(order.attempt_id)
    await engine.stop(order.attempt_id, "kill")
    ended = await sink.end_of(order.attempt_id)
    for _ in range(LOOKS):
        assert hostile.alive(mark) == []
    assert (
        ended.outcome == "stopped" or name == "hops"
    )  # whose program may have left before the stop


@pytest.mark.parametrize("name", NAMES)
async def test_a_kill_at_once_leaves_nothing(engine: ProcessEngine, name: str, mark: str) -> None:
    order = hostile_order(name, mark)
    sink = await begun(engine, order)
    await engine.stop(order.attempt_id, "kill")
    await sink.end_of(order.attempt_id)
    for _ in range(LOOKS):
        assert hostile.alive(mark) == []


@pytest.mark.parametrize("name", ["forks", "changes session", "forks twice", "ignores TERM"])
async def test_without_adoption_group_and_cookie_find_them(
    tmp_path: Path, name: str, mark: str
) -> None:
    order = hostile_order(name, mark)
    async with ProcessEngine(tmp_path, guardian_mode="plain") as engine:
        sink = await begun(engine, order)
        await engine.stop(order.attempt_id, "kill")
        await sink.end_of(order.attempt_id)
        assert hostile.alive(mark) == []


def test_a_kill_of_the_process_group_would_leave_some(mark: str) -> None:
    """The negative control: what most runners do leaves processes, and `hostile.alive` sees them."""
    left = 0
    for name in NAMES:
        argv = [sys.executable, "-I", "-S", "-c", hostile.script(name), mark]
        with subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
            os.killpg(program.pid, signal.SIGTERM)
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            left += len(hostile.alive(mark))
            for process in hostile.alive(mark):
                process.kill()
    assert left >= 4


async def test_what_outlives_its_program_is_ended_before_the_end_is_told(
    engine: ProcessEngine, mark: str
) -> None:
    script = hostile.script("daemon without environment").replace("time.sleep(600)\n\n", "")
    script = script.rsplit("time.sleep(600)", 1)[0]
    script += "\nwhile not os.path.exists('go'): time.sleep(0.01)"
    order = script_order(script, mark)
    sink = await begun(engine, order)
    folder = next(engine.place.iterdir())
    (folder / "go").touch()
    ended = await sink.end_of(order.attempt_id)
    assert hostile.alive(mark) == []
    assert ended.outcome == "completed"


async def test_neighbours_are_left_alone(engine: ProcessEngine, mark: str) -> None:
    """Twenty attempts side by side, each with a hidden daemon: a stop of one ends its own processes and no other's."""
    names = ["daemon without environment", "forks twice"] * 10
    orders = [hostile_order(name, f"{mark}-{number}") for number, name in enumerate(names)]
    sinks = [await begun(engine, order) for order in orders]
    marks = [f"{mark}-{number}" for number in range(len(orders))]
    try:
        for number in range(0, len(orders), 2):
            await engine.stop(orders[number].attempt_id, "kill")
            await sinks[number].end_of(orders[number].attempt_id)
            assert hostile.alive(marks[number]) == []
            assert len(hostile.alive(marks[number + 1])) >= 2
            assert orders[number + 1].attempt_id in await engine.query()
    finally:
        for order in orders:
            await engine.stop(order.attempt_id, "kill")
    for sink, order in zip(sinks, orders, strict=True):
        await sink.end_of(order.attempt_id)


FIRST_THREAD_LEAVES = """
import ctypes, os, platform, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
print("ready", os.getpid(), flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)
"""


async def test_a_process_without_its_first_thread_is_no_zombie(
    engine: ProcessEngine, mark: str
) -> None:
    order = script_order(FIRST_THREAD_LEAVES, mark)
    sink = await begun(engine, order)
    pid = int(sink.written[order.attempt_id, "stdout"].split()[1])
    with anyio.fail_after(10):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            await anyio.lowlevel.checkpoint()
    assert order.attempt_id in await engine.query()
    await engine.stop(order.attempt_id, "term")
    assert (await sink.end_of(order.attempt_id)).signal == "SIGTERM"
    assert not psutil.pid_exists(pid)


WORKER = """
import sys, time
import anyio
sys.path[:0] = [{root!r}]
from orchestra.engines.process import ProcessEngine
from orchestra.testing.check_engine import Recorder
from tests.engines import hostile
from tests.engines.test_tree import begun, hostile_order
async def main():
    async with ProcessEngine({folder!r}) as engine:
        {lease}
        for name in hostile.SCRIPTS:
            await begun(engine, hostile_order(name, {mark!r}))
        {last}
        print("all ready", flush=True)
        await anyio.sleep_forever()
anyio.run(main)
"""


def worker_process(
    folder: Path, mark: str, lease: str = "pass", last: str = "pass"
) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parent.parent.parent)
    code = WORKER.format(root=root, folder=str(folder), mark=mark, lease=lease, last=last)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


async def ready(worker: subprocess.Popen[bytes]) -> None:
    assert worker.stdout is not None
    line = await anyio.to_thread.run_sync(worker.stdout.readline)
    assert line == b"all ready\n"


def ended_process(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.mark.system
async def test_a_killed_worker_leaves_nothing(tmp_path: Path, mark: str) -> None:
    worker = worker_process(tmp_path, mark)
    try:
        await ready(worker)
        assert len(hostile.alive(mark)) > len(NAMES)
        worker.kill()
        assert await until_dead(mark, 5.0) < 5.0
    finally:
        ended_process(worker)


@pytest.mark.system
async def test_a_frozen_worker_loses_its_processes_when_the_lease_passes(
    tmp_path: Path, mark: str
) -> None:
    renewals = """
        async def renew():
            while True:
                engine.extend(time.monotonic() + 2.0)
                await anyio.sleep(0.2)
        import contextlib
        stack = contextlib.AsyncExitStack()
        group = await stack.enter_async_context(anyio.create_task_group())
        group.start_soon(renew)"""
    worker = worker_process(tmp_path, mark, renewals.strip())
    try:
        await ready(worker)
        worker.send_signal(signal.SIGSTOP)
        frozen_at = time.monotonic()
        with anyio.move_on_after(1.0):  # within the lease everything goes on
            await until_dead(mark, 60.0)
        assert hostile.alive(mark)
        await until_dead(mark, 5.0)
        assert 1.5 < time.monotonic() - frozen_at < 4.0
    finally:
        ended_process(worker)


@pytest.mark.system
async def test_a_killed_worker_leaves_nothing_beyond_its_lease(tmp_path: Path, mark: str) -> None:
    """Without an engine what ignores TERM gets a second, but not where the lease passes before: then it may run elsewhere."""
    lasted_s: list[float] = []
    for lease_s in (60.0, 0.3):
        last = f"engine.extend(time.monotonic() + {lease_s})"
        worker = worker_process(tmp_path / str(lease_s), mark, last=last)
        try:
            await ready(worker)
            worker.kill()
            lasted_s.append(await until_dead(mark, 5.0))
        finally:
            ended_process(worker)
    grace_s, lease_s = lasted_s
    assert lease_s < 0.9 < grace_s, "it has a second without a lease"


async def test_a_passed_lease_ends_what_runs_and_starts_nothing_new(
    engine: ProcessEngine, mark: str
) -> None:
    running, late = hostile_order("ignores TERM", mark), hostile_order("forks", mark)
    sink = await begun(engine, running)
    engine.extend(time.monotonic() + 0.2)
    ended = await sink.end_of(running.attempt_id)
    assert (ended.outcome, ended.cause) == ("failed", Cause.LOST)
    assert hostile.alive(mark) == []
    await engine.start(late, sink)
    ended = await sink.end_of(late.attempt_id)
    assert (ended.outcome, ended.cause) == ("failed", Cause.LOST)
    engine.extend(time.monotonic() + 60)
    again = hostile_order("forks", mark)
    sink = await begun(engine, again)
    await engine.stop(again.attempt_id, "kill")
    assert (await sink.end_of(again.attempt_id)).outcome == "stopped"


async def test_a_killed_guardian_is_noticed_and_replaced(engine: ProcessEngine, mark: str) -> None:
    names = [name for name in NAMES if name not in ("hops", "daemon without environment")]
    orders = [hostile_order(name, mark) for name in names]
    sinks = [await begun(engine, order) for order in orders]
    pid = engine.guardian_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    for sink, order in zip(sinks, orders, strict=True):
        ended = await sink.end_of(order.attempt_id)
        assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
        assert "guardian" in ended.message
    assert hostile.alive(mark) == []
    order = order_for("process", b'{"argv": ["true"]}')
    await engine.start(order, sink := Recorder())
    assert (await sink.end_of(order.attempt_id)).outcome == "completed"
    assert engine.guardian_pid not in (None, pid)


async def test_the_guardian_leaves_with_the_engine(tmp_path: Path) -> None:
    async with ProcessEngine(tmp_path) as engine:
        order = order_for("process", b'{"argv": ["true"]}')
        await engine.start(order, sink := Recorder())
        await sink.end_of(order.attempt_id)
        pid = engine.guardian_pid
        assert pid is not None
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


async def test_a_lease_may_end_in_a_hundred_years(engine: ProcessEngine, mark: str) -> None:
    engine.extend(time.monotonic() + 100 * 365 * 86_400)
    order = script_order("import time; time.sleep(0.2)", mark)
    sink = Recorder()
    await engine.start(order, sink)
    with anyio.fail_after(10):
        assert (await sink.end_of(order.attempt_id)).outcome == "completed"
