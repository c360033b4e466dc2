"""A worker obeys SIGTERM: it finishes, hands in, says goodbye."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from orchestra.ports import Ended
from orchestra.statemachine.commands import LeaveWorker
from orchestra.worker.signals import run_until_signalled
from tests.worker.kit import BOUND_S, ScriptedEngine, farm, until

pytestmark = pytest.mark.anyio


async def test_a_signal_drains() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        agent = it.agent(engine)
        left = anyio.Event()

        async def run() -> None:
            await run_until_signalled(agent)
            left.set()

        it.group.start_soon(run)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.wait_all_tasks_blocked()
        assert not left.is_set(), "it waits for what runs"
        for attempt_id in tuple(engine.running):
            await engine.end(attempt_id, Ended("completed", result=b"1"))
        with anyio.fail_after(BOUND_S):
            await left.wait()
        await it.until_job(job_id)
        assert it.link.of(LeaveWorker)


async def test_a_second_signal_ends_it_at_once() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        agent = it.agent(engine)
        left = anyio.Event()

        async def run() -> None:
            await run_until_signalled(agent)
            left.set()

        it.group.start_soon(run)
        await it.submit()
        await until(lambda: bool(engine.running))
        os.kill(os.getpid(), signal.SIGTERM)
        await anyio.wait_all_tasks_blocked()
        os.kill(os.getpid(), signal.SIGINT)
        with anyio.fail_after(BOUND_S):
            await left.wait()
        assert not it.link.of(LeaveWorker)
