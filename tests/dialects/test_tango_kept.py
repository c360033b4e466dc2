"""A start that comes while the former run is still being stopped is kept until that has ended, or is taken back."""

from __future__ import annotations

from itertools import pairwise

import pytest

from orchestra.dialects import tango_runs
from orchestra.dialects.asks import Dialogue
from orchestra.dialects.tango_ends import REPORTS
from orchestra.dialects.tango_kept import KEPT_MS_MAX, STARTS
from orchestra.errors import Unavailable
from orchestra.statemachine.commands import ArchiveProject, CancelJob, OpenProject
from orchestra.statemachine.reports import Happening
from orchestra.storage.memory import MemoryStore
from orchestra.transports.asking import put
from tests.dialects.tango_kit import IDS, Container, generator, jobs, open_container
from tests.dialects.test_tango_member import EDGES

pytestmark = pytest.mark.anyio

STOPPED = ("stopped", "[*]", "ready")


async def is_being_stopped(container: Container, ids: str = IDS) -> None:
    """A run that was asked to stop, and has not ended."""
    await container.says(f"/start?{ids}")
    await container.tells(Happening.RUNNING)
    await container.says(f"/stop?{ids}")
    assert await container.is_stopping()


async def kept(container: Container) -> list[str]:
    """The status of every start that was kept, the newest first."""
    return [str(job.status) for job in await jobs(container, STARTS)]


@pytest.mark.parametrize(
    ("replies", "answer"),
    [("guide", "starting"), ("programs", '"started"'), ("autonn", '"started"')],
)
async def test_a_start_during_a_stop_runs_when_the_former_run_has_ended(
    replies: str, answer: str
) -> None:
    served = generator(replies=replies, manager="projectmanager:8085")
    async with open_container(served) as container:
        await is_being_stopped(container)
        seen = [(await container.word()).strip('"'), *STOPPED]
        for _ in range(3):
            # Several are one, and each is answered like any start.
            assert await container.says(f"/start?{IDS}") == (200, answer)
        await container.passes(1)
        seen.append((await container.word()).strip('"'))
        assert (len(await jobs(container)), await kept(container)) == (1, ["queued"])

        await container.tells(Happening.STOPPED)
        seen.append((await container.word()).strip('"'))
        await container.passes(1)
        assert (len(await jobs(container)), await kept(container)) == (2, ["cancelled"])
        for happening in (Happening.RUNNING, Happening.COMPLETED):
            seen.append((await container.word()).strip('"'))
            await container.tells(happening)
        seen.append((await container.word()).strip('"'))
        moves = [(a, b) for a, b in pairwise(seen) if a != b]
        assert set(moves) < EDGES, seen
        assert moves[-3:] == [
            ("ready", "started"),
            ("started", "running"),
            ("running", "completed"),
        ]
        for _ in range(3):
            await container.passes(1)
        assert [call.path[-15:] for call in container.manager.calls] == ["&status=success"]
        assert len(await jobs(container)) == 2


async def test_a_stop_takes_the_start_back_and_a_further_start_counts_again() -> None:
    async with open_container() as container:
        await is_being_stopped(container)
        for _ in range(3):
            assert await container.says(f"/start?{IDS}") == (200, "starting")
            assert await container.word() == "started"
            assert await container.says(f"/stop?{IDS}") == (200, "finished")
            # What it said before goes on: the former run is alive, and is not said to be stopped.
            assert await container.word() == "running"
        assert await kept(container) == ["cancelled"] * 3
        container.restart()
        assert await container.word() == "running"
        await container.tells(Happening.STOPPED)
        for _ in range(3):
            await container.passes(1)
        assert await container.word() == "stopped"
        assert not await container.orders()
        assert len(await jobs(container)) == 1
        assert not container.manager.calls

        assert await container.says(f"/start?{IDS}") == (200, "starting")
        await container.tells(Happening.RUNNING)
        assert await container.word() == "running"
        assert await container.says(f"/stop?{IDS}") == (200, "finished")
        for word in ("start", "stop", "start"):
            await container.says(f"/{word}?{IDS}")
        await container.tells(Happening.STOPPED)
        await container.passes(1)
        assert len(await jobs(container)) == 3
        assert len(await container.orders()) == 1


async def test_a_kept_start_survives_a_restart_of_the_member_and_of_its_core() -> None:
    store = MemoryStore()
    async with open_container(store=store) as container:
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        container.restart()
        assert await container.word() == "started"
        assert await container.says(f"/start?{IDS}") == (200, "starting")
        assert await kept(container) == ["queued"]
    async with open_container(store=store) as container:
        assert await container.word() == "started"
        await container.passes(1)
        assert (len(await jobs(container)), await kept(container)) == (1, ["queued"])
        await container.tells(Happening.STOPPED)
        await container.passes(1)
        assert await kept(container) == ["cancelled"]
        await container.tells(Happening.RUNNING)
        assert await container.word() == "running"


async def test_what_was_left_of_a_start_that_became_a_run_is_put_away() -> None:
    store = MemoryStore()
    async with open_container(store=store) as container:
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        await container.tells(Happening.STOPPED)
        # The member is killed after the run was submitted: the last thing of its round is missing.
        dialogue = container.dialect.chores[0].begin()
        assert isinstance(dialogue, Dialogue)
        round_ = dialogue.begin()
        ask, rounds = next(round_), 0
        while not isinstance(ask, CancelJob):
            rounds += 1
            ask = round_.send(await put(container.asker, ask))
        round_.close()
        assert rounds < 10
        assert (len(await jobs(container)), await kept(container)) == (2, ["queued"])
        container.restart()
        await container.tells(Happening.RUNNING)
        assert await container.word() == "running"
        assert await kept(container) == ["cancelled"]
        await container.tells(Happening.COMPLETED)
        for _ in range(3):
            await container.passes(1)
        assert len(await jobs(container)) == 2
        assert len(container.manager.calls) == 1


async def test_a_former_run_that_does_not_end_has_the_start_fail_once() -> None:
    async with open_container() as container:
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        beats = 0
        while await container.word() == "started":
            beats += 1
            assert await container.orders()
            await container.passes(5)
        assert beats == KEPT_MS_MAX // 5_000
        assert await container.word() == "failed"
        assert [call.path[-14:] for call in container.manager.calls] == ["&status=failed"]
        container.restart()
        await container.passes(0.5)
        assert await container.word() == "failed"
        assert len(container.manager.calls) == 1
        (note,) = await jobs(container, REPORTS)
        assert note.name.endswith("was reported")

        # A start counts again, and the former run may end after all.
        assert await container.says(f"/start?{IDS}") == (200, "starting")
        assert await container.word() == "started"
        await container.tells(Happening.STOPPED)
        await container.passes(1)
        assert len(await jobs(container)) == 2
        await container.tells(Happening.RUNNING)
        await container.tells(Happening.FAILED)
        await container.passes(1)
        assert len(container.manager.calls) == 2


async def test_a_stop_silences_the_failure_of_a_start_that_was_given_up() -> None:
    async with open_container() as container:
        container.manager.answer = lambda _: None
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        for _ in range(KEPT_MS_MAX // 5_000 - 1):
            assert await container.orders()
            await container.passes(5)
        with pytest.raises(Unavailable, match=r"failed of .* try 1"):
            await container.passes(5)
        assert await container.says(f"/stop?{IDS}") == (200, "finished")
        await container.passes(61)
        container.restart()
        await container.passes(61)
        assert len(container.manager.calls) == 1
        assert await container.says(f"/stop?{IDS}") == (200, "finished")


async def test_cancelling_it_at_the_core_takes_the_start_back_too() -> None:
    async with open_container() as container:
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        (job,) = await jobs(container, STARTS)
        await container.asker.ask(CancelJob(job.id))
        assert await container.word() == "running"
        await container.passes(1)
        assert await container.says(f"/start?{IDS}") == (200, "starting")
        assert await kept(container) == ["queued", "cancelled"]
        await container.tells(Happening.STOPPED)
        await container.passes(1)
        assert len(await jobs(container)) == 2
        assert len(await container.orders()) == 1


async def test_a_core_that_refuses_the_run_is_asked_again_and_holds_nothing_else_up() -> None:
    async with open_container() as container:
        await is_being_stopped(container)
        await container.says(f"/start?{IDS}")
        await container.tells(Happening.STOPPED)
        other = "user_id=other&project_id=1"
        await container.says(f"/start?{other}")
        await container.tells(Happening.RUNNING)
        await container.tells(Happening.COMPLETED)
        await container.asker.ask(ArchiveProject(tango_runs.RUNS))
        with pytest.raises(Unavailable, match=r"the start of .*kyunghee.* is refused"):
            await container.passes(1)
        await container.passes(0)
        assert len(container.manager.calls) == 1, "the other's end"
        assert await container.word() == "started"
        await container.asker.ask(OpenProject(tango_runs.RUNS))
        for _ in range(4):
            await container.passes(3)
            await container.orders()
        assert await kept(container) == ["cancelled"]
        assert len(await container.orders()) == 1
