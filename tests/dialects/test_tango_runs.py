"""One run at a time for each user and project, whoever asks at the same time, and within the bounds."""

from __future__ import annotations

import anyio
import pytest

from orchestra.dialects import tango_runs
from orchestra.statemachine.reports import Happening
from tests.dialects.tango_kit import IDS, jobs, open_container

pytestmark = pytest.mark.anyio

OTHER = "user_id=other&project_id=1"


async def test_starts_at_the_same_time_are_one_run() -> None:
    async with open_container() as container:
        for runs in (1, 2):
            told: list[str] = []

            async def start(told: list[str] = told) -> None:
                told.append((await container.says(f"/start?{IDS}"))[1])

            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(start)
            assert told == ["starting"] * 20
            assert len(await jobs(container)) == runs
            await container.tells(Happening.RUNNING)
            await container.tells(Happening.COMPLETED)
            assert await container.word() == "completed"


async def test_a_stop_during_a_start_leaves_nothing_running() -> None:
    async with open_container() as container:
        async with anyio.create_task_group() as group:
            group.start_soon(container.says, f"/start?{IDS}")
            group.start_soon(container.says, f"/stop?{IDS}")
        if await container.word() != "stopped":
            # The stop came first, and was told that nothing was started.
            assert await container.says(f"/stop?{IDS}") == (200, "finished")
        assert await container.word() == "stopped"
        assert not await container.orders()


async def test_what_was_forgotten_is_as_never_started_and_starts_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tango_runs, "REMEMBERED_MAX", 1)
    async with open_container() as container:
        for number, ids in enumerate((IDS, OTHER, IDS, OTHER), start=1):
            assert await container.word(ids) == "ready"
            assert await container.says(f"/start?{ids}") == (200, "starting")
            assert len(await jobs(container)) == number
            assert await container.word(ids) == "started"
            await container.tells(Happening.RUNNING)
            await container.tells(Happening.COMPLETED)
            await container.passes(1)
            assert await container.word(ids) == "completed"


async def test_what_is_alive_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tango_runs, "REMEMBERED_MAX", 1)
    async with open_container() as container:
        await container.says(f"/start?{IDS}")
        await container.says(f"/start?{OTHER}")
        assert [await container.word(ids) for ids in (IDS, OTHER)] == ["started", "started"]
        await container.tells(Happening.RUNNING)
        await container.tells(Happening.FAILED)
        await container.passes(1)
        assert len(container.manager.calls) == 2


async def test_runs_that_are_alive_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tango_runs, "LIVE_MAX", 1)
    async with open_container() as container:
        assert await container.says(f"/start?{IDS}") == (200, "starting")
        assert await container.says(f"/start?{OTHER}") == (200, "error")
        await container.tells(Happening.RUNNING)
        await container.tells(Happening.FAILED)
        await container.passes(1)
        assert await container.says(f"/start?{OTHER}") == (200, "starting")
