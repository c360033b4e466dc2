"""What can be asked of a job that has ended does not depend on whether the orchestrator was started again since."""

from __future__ import annotations

from pathlib import Path

import pytest

import orchestra
from orchestra.errors import Conflict, NotFound
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    Command,
    PauseJob,
    ResumeJob,
    RetryTask,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import GetJob

pytestmark = pytest.mark.anyio


async def test_a_cancelled_job_is_answered_for_after_a_restart_as_before(tmp_path: Path) -> None:
    data = str(tmp_path / "farm.db")
    told: list[list[object]] = []
    job_id = ""
    for life in range(2):
        async with orchestra.App(data).run(workers=0) as client:
            if not life:
                job = SubmitJob("job", (StageDraft("only", "app"),))
                job_id = (await client.asker.ask(job)).job_id
                await client.asker.ask(CancelJob(job_id))
            told.append([])
            commands: tuple[Command[object], ...] = (
                CancelJob(job_id),
                CancelTask(task_id(job_id, 1)),
                PauseJob(job_id),
                ResumeJob(job_id),
            )
            for command in commands:
                try:
                    told[-1].append(await client.asker.ask(command))
                except Conflict as refusal:
                    told[-1].append(refusal.message)
    assert told[0] == told[1]
    assert "the job is cancelled, so it can not pause" in told[0]


async def test_a_task_of_a_finished_job_is_tried_again_after_a_restart(tmp_path: Path) -> None:
    data = str(tmp_path / "farm.db")
    async with orchestra.App(data).run(workers=0) as client:
        accepted = await client.asker.ask(SubmitJob("job", (StageDraft("only", "app"),)))
        await client.asker.ask(CancelJob(accepted.job_id))
    async with orchestra.App(data).run(workers=0) as client:
        changed = await client.asker.ask(RetryTask(task_id(accepted.job_id, 1)))
        assert changed.status is TaskStatus.QUEUED
        seen = await client.asker.answer(GetJob(accepted.job_id))
        assert seen.status is JobStatus.RUNNING


@pytest.mark.parametrize("job_id", ["none", "0" * 26, ""])
async def test_what_never_was_is_not_found(job_id: str, tmp_path: Path) -> None:
    async with orchestra.App(str(tmp_path / "farm.db")).run(workers=0) as client:
        for command in (CancelJob(job_id), PauseJob(job_id), ResumeJob(job_id)):
            with pytest.raises(NotFound, match="there is no job"):
                await client.asker.ask(command)
