"""A program that does nothing but ask does not keep the orchestrator from working."""

from __future__ import annotations

import time

import pytest

import orchestra

pytestmark = pytest.mark.anyio

BOUND_S = 30.0


async def test_a_loop_of_questions_lets_the_job_go_on() -> None:
    app = orchestra.App()

    @app.task
    async def noop() -> int:
        return 1

    until_s = time.monotonic() + BOUND_S
    async with app.run() as client:
        job = await client.submit(noop.call())
        while not await job.done():
            # No timer of the event loop would ever fire here if the questions kept it for themselves.
            assert time.monotonic() < until_s
        assert await job.result() == 1
