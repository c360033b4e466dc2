"""A member container reports its ends: once, until it is heard, and through a restart."""

from __future__ import annotations

import pytest

from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.quoting import shown
from orchestra.dialects.tango_ends import REPORTS, TRIES_MAX, is_acceptance
from orchestra.dialects.tango_jobs import ids_of_name, name_of
from orchestra.dialects.tango_runs import REPORT_AGE_MS
from orchestra.errors import Unavailable
from orchestra.statemachine.commands import CancelJob
from orchestra.statemachine.queries import GetJob
from orchestra.statemachine.reports import Happening
from orchestra.storage.memory import MemoryStore
from tests.dialects.tango_kit import IDS, Container, jobs, open_container

pytestmark = pytest.mark.anyio


async def ended(container: Container, happening: Happening, ids: str = IDS) -> None:
    """A run that was started and ended."""
    await container.says(f"/start?{ids}")
    await container.tells(Happening.RUNNING)
    await container.tells(happening)


@pytest.mark.parametrize(
    ("happening", "status"), [(Happening.COMPLETED, "success"), (Happening.FAILED, "failed")]
)
async def test_an_end_is_reported_once(happening: Happening, status: str) -> None:
    async with open_container() as container:
        await ended(container, happening)
        for _ in range(3):
            await container.passes(1)
        (call,) = container.manager.calls
        assert (call.host, call.port, call.method, call.form) == (
            "projectmanager",
            8085,
            "GET",
            (),
        )
        assert call.path == (
            f"/status_report?container_id=code_gen&user_id=kyunghee&project_id=1&status={status}"
        )
        container.restart()
        await container.passes(1)
        assert len(container.manager.calls) == 1
        (told,) = await jobs(container, REPORTS)
        assert told.name.endswith("was reported")
        await ended(container, Happening.COMPLETED)
        await container.passes(1)
        assert len(container.manager.calls) == 2


async def test_a_report_is_repeated_until_it_is_taken_and_survives_a_restart() -> None:
    async with open_container() as container:
        await ended(container, Happening.COMPLETED)
        for answer in (None, FarReply(500, b"boom"), FarReply(404, b"")):
            container.manager.answer = lambda _, answer=answer: answer
            with pytest.raises(Unavailable, match=r"success of \[.kyunghee., .1.\].* try"):
                await container.passes(61)
        # It is not asked again before its pause is over.
        await container.passes(0.1)
        assert len(container.manager.calls) == 3
        container.restart()
        container.manager.answer = lambda _: FarReply(200, b"")
        await container.passes(0)
        await container.passes(61)
        assert len(container.manager.calls) == 4


async def test_tries_are_bounded_and_what_was_given_up_stays_so() -> None:
    async with open_container() as container:
        container.manager.answer = lambda _: None
        await ended(container, Happening.FAILED)
        for number in range(1, TRIES_MAX + 1):
            with pytest.raises(Unavailable, match="given up" if number == TRIES_MAX else "try"):
                await container.passes(61)
        container.restart()
        await container.passes(61)
        assert len(container.manager.calls) == TRIES_MAX
        (told,) = await jobs(container, REPORTS)
        assert told.name.endswith("was given up")


@pytest.mark.parametrize(
    "body",
    [
        b"Project matching query does not exist.",
        b"'nosuch'",
        b"local variable 'error' referenced before assignment",
        b'{"status": 500, "message": "no"}',
        b"200",
        b"[" * 100_000,
        b"\xff\n\x1b[2Jforged: line",
    ],
)
async def test_an_exception_with_status_200_is_told_and_not_reported_twice(body: bytes) -> None:
    async with open_container() as container:
        container.manager.answer = lambda _: FarReply(200, body)
        await ended(container, Happening.COMPLETED)
        with pytest.raises(Unavailable) as told:
            await container.passes(1)
        text = str(told.value)
        assert text.startswith("code_gen's report was not taken: success of ")
        assert '["kyunghee", "1"]' in text
        assert shown(body.decode(errors="replace")) in text
        assert len(text) < 300
        assert text.isprintable()
        for _ in range(3):
            await container.passes(61)
        container.restart()
        await container.passes(61)
        assert len(container.manager.calls) == 1
        (note,) = await jobs(container, REPORTS)
        assert note.name.endswith("was objected to")


@pytest.mark.parametrize("body", [b"", b"\r\n", b'{"status": 200}', b' {"status":200,"x":[]}\n'])
async def test_what_accepts_a_report_is_nothing_or_its_status(body: bytes) -> None:
    assert is_acceptance(FarReply(200, body))
    assert not is_acceptance(FarReply(201, body))
    async with open_container() as container:
        container.manager.answer = lambda _: FarReply(200, body)
        await ended(container, Happening.COMPLETED)
        await container.passes(1)
        (note,) = await jobs(container, REPORTS)
        assert note.name.endswith("was reported")


async def test_what_was_stopped_is_not_reported_nor_what_ended_long_ago() -> None:
    async with open_container() as container:
        await container.says(f"/start?{IDS}")
        await container.tells(Happening.RUNNING)
        await container.says(f"/stop?{IDS}")
        await container.tells(Happening.STOPPED)
        await ended(container, Happening.COMPLETED, "user_id=old&project_id=1")
        container.clock.ms += REPORT_AGE_MS + 1_000
        container.restart()
        await container.passes(1)
        assert not container.manager.calls


@pytest.mark.parametrize("happening", [Happening.COMPLETED, Happening.FAILED])
async def test_a_stop_that_comes_after_the_end_and_before_its_report_silences_it(
    happening: Happening,
) -> None:
    async with open_container() as container:
        container.manager.answer = lambda _: None
        await ended(container, happening)
        with pytest.raises(Unavailable, match="try"):
            await container.passes(1)
        # The manager is back, its user stops the project, and what it would do at a report must not happen.
        container.manager.answer = lambda _: FarReply(200, b"")
        assert await container.says(f"/stop?{IDS}") == (200, "finished")
        await container.passes(1.5)
        container.restart()
        await container.passes(1.5)
        assert len(container.manager.calls) == 1
        (told,) = await jobs(container, REPORTS)
        assert told.name.endswith("was stopped")
        await ended(container, Happening.COMPLETED)
        await container.passes(1)
        assert len(container.manager.calls) == 2, "the next run is reported again"


async def test_a_run_that_somebody_else_stopped_is_stopped() -> None:
    async with open_container() as container:
        await container.says(f"/start?{IDS}")
        (job,) = await jobs(container)
        await container.asker.ask(CancelJob(job.id))
        assert await container.word() == "stopped"


async def test_the_core_lists_a_run_as_a_job_of_its_own() -> None:
    store = MemoryStore()
    async with open_container(store=store) as container:
        await ended(container, Happening.COMPLETED)
        (job,) = await jobs(container)
        assert ids_of_name(job.name) == ("kyunghee", "1")
        assert (await container.asker.answer(GetJob(job.id))).stages[0].app == "generate"
    # The same store under another orchestrator: what ended is known, and goes on being told.
    async with open_container(store=store) as container:
        assert await container.word() == "completed"
        await container.passes(1)
        assert len(container.manager.calls) == 1


@pytest.mark.parametrize("name", ["no json", "1", "[]", '["a"]', '["a", 1]', '["a", "b", "c"]'])
def test_other_jobs_are_no_runs(name: str) -> None:
    assert ids_of_name(name) is None
    assert ids_of_name(name_of(("a b", '"'))) == ("a b", '"')
