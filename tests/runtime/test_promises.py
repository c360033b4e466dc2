"""A bug that would break a promise: nothing of it is stored, the server stops, and what led there is kept and leads there again."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestra import ports
from orchestra.compose import open_orchestrator
from orchestra.errors import Defect, Malformed
from orchestra.runtime.promises import keep_promises
from orchestra.statemachine import State, load
from orchestra.statemachine.commands import JoinWorker, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import AttemptStatus, JobStatus, TaskStatus
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.records import Attempt, Cause, Job, Record, Task, evolve
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.statemachine.step import HANDLERS
from orchestra.statemachine.transaction import Transaction
from orchestra.storage.testimony import COMMANDS, keep_testimony, read_testimony
from orchestra.testing.core import Core
from orchestra.testing.replay import replay
from tests.cli.kit import orchestra

KEEP = Transaction.keep
GIVEN = (
    '{"problem": "", "number": 1, "stimuli": [{"command": "%s", "fields": {}, "at_ms": 1, "seed": "%s",'
    ' "principal": "", "key": ""}]}'
)
BROKEN = "I11: task .* is completed, and its attempt 1 is started"


def forgets_an_end(self: Transaction, kind: str, rows: Any, path: Any, reason: str = "") -> None:
    """A bug: the completions of attempts are not put into their rows."""
    if kind != "attempt" or path[-1][2] != "completed":
        KEEP(self, kind, rows, path, reason)


def played() -> State:
    """One task that was lost once and runs again, and one that completed."""
    core = Core()
    core.submit(StageDraft("only", "app"))
    core.join()
    core.advance(60_000)
    core.join("w2", session="s2")
    core.settle()
    core.submit(StageDraft("only", "app"))
    core.join("w3", session="s3")
    core.settle()
    core.report(core.held()[-1].attempt_id)
    return core.state


def one(state: State, kind: type[Any], status: str) -> Any:
    return next(row for row in state.each(kind) if row.status == status)


def lost(state: State) -> Attempt:
    return next(row for row in state.each(Attempt) if row.cause is Cause.LOST)


def lives_again(state: State) -> Record:
    return evolve(lost(state), status=AttemptStatus.RUNNING)


def lost_and_live(state: State) -> Record:
    first = lost(state)
    state.rows["attempt"][first.id] = evolve(first, status=AttemptStatus.RUNNING)
    return next(row for row in state.each(Attempt) if row.number == 2)


def held_by_nobody(state: State) -> Record:
    return evolve(one(state, Task, "completed"), status=TaskStatus.RUNNING)


def over_and_live(state: State) -> Record:
    return evolve(one(state, Task, "leased"), status=TaskStatus.CANCELLED)


def completed_by_a_failure(state: State) -> Record:
    completed = one(state, Attempt, "completed")
    state.rows["attempt"][completed.id] = evolve(completed, status=AttemptStatus.FAILED)
    return one(state, Task, "completed")


def over_with_tasks_to_go(state: State) -> Record:
    return evolve(one(state, Job, "running"), status=JobStatus.COMPLETED)


@pytest.mark.parametrize(
    ("change", "promise"),
    [
        (lives_again, "I5: .* its task is at attempt 2"),
        (lost_and_live, "I3: attempts 1 and 2 "),
        (held_by_nobody, "I11: .* is running, and its attempt 1 is completed"),
        (over_and_live, "I11: .* is cancelled, and its attempt 2 is started"),
        (completed_by_a_failure, "I8: .* is completed, and its attempt 1 is failed"),
        (over_with_tasks_to_go, "I6: job 1 is completed with 1 of 1 tasks to go"),
    ],
)
def test_rows_that_do_not_belong_together_are_a_defect(
    change: Callable[[State], Record], promise: str
) -> None:
    state = played()
    rows = [row for rows in state.rows.values() for row in rows.values()]
    keep_promises(rows, state)
    with pytest.raises(Defect, match=promise):
        keep_promises([change(state)], state)


def test_a_row_whose_fellow_was_set_aside_is_not_judged() -> None:
    """Damage of the file must not stop a server."""
    state = played()
    state.rows["attempt"].clear()
    keep_promises([*state.each(Task), *state.each(Job)], state)
    state = played()
    state.rows["task"].clear()
    keep_promises(state.each(Attempt), state)
    running = one(played(), Job, "running")
    keep_promises([evolve(running, status=JobStatus.COMPLETED)], load((), 0))


async def complete_one(data: Path | None) -> None:
    async with open_orchestrator(data and str(data)) as asker:
        await asker.ask(SubmitJob("shot", (StageDraft("only", "app"),)))
        joined = await asker.ask(JoinWorker("w1", "s1", 1, ("app",)))
        beat = await asker.ask(Heartbeat(joined.worker_id, joined.incarnation))
        told = AttemptReport(beat.orders[0].attempt_id, Happening.COMPLETED, b"\x00\xff")
        await asker.ask(AttemptsReported(joined.worker_id, joined.incarnation, (told,)))


async def statuses(data: Path) -> list[str]:
    async with open_orchestrator(str(data)) as asker:
        return [job.status for job in (await asker.answer(ListJobs())).items]


def defects(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in defects(each)]
    return [error] if isinstance(error, Defect) else []


def test_a_bug_stores_nothing_and_is_kept_to_be_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "farm.db"
    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "keep", forgets_an_end)
        with pytest.raises(BaseExceptionGroup) as caught:
            anyio.run(complete_one, data)
        assert next(str(error) for error in defects(caught.value)).startswith("I11: ")
        (kept,) = tmp_path.glob("farm.db.defect-*")
        assert str(kept) in caplog.text
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        testimony = read_testimony(kept)
        assert "I11: task " in testimony.problem
        assert "complete" in testimony.problem, "the story of the batch is told"
        assert type(testimony.stimuli[-1].command) is AttemptsReported
        with pytest.raises(Defect, match=BROKEN):
            anyio.run(replay, data, testimony)
    words = ("prove", "replay", str(kept), "--data", str(data))
    mended = orchestra(*words)
    assert (mended.code, mended.err) == (0, "")
    assert "does not happen any more" in mended.out
    assert "AttemptsReported of local" in mended.out
    assert anyio.run(statuses, data) == ["running"], "what was decided by mistake was not stored"
    anyio.run(complete_one, data)
    gone_on = orchestra(*words)
    assert gone_on.code == 2
    assert "batches, and the bug came after batch" in gone_on.err


def test_without_a_file_a_bug_is_told_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Transaction, "keep", forgets_an_end)
    with pytest.raises(BaseExceptionGroup):
        anyio.run(complete_one, None)
    assert "I11: task " in caplog.text


def test_every_command_comes_back_from_a_testimony(tmp_path: Path) -> None:
    core = Core()
    core.submit(StageDraft("only", "app", b"\x00\xff", retries=1), key="k")
    core.join(capacity=(("cpu", 2_000),), labels=("gpu",))
    core.settle()
    core.report(core.held()[0].attempt_id, result=b"\xff")
    assert set(COMMANDS.values()) == set(HANDLERS)
    kept = keep_testimony(str(tmp_path / "x"), ports.Testimony("p", 3, tuple(core.journal)))
    assert read_testimony(Path(kept)) == ports.Testimony("p", 3, tuple(core.journal))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        '{"problem": "", "number": 1, "stimuli": [{"command": "Nothing"}]}',
        GIVEN % ("Nothing", "f"),
        GIVEN % ("Tick", "-"),
    ],
)
def test_what_is_no_testimony_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "farm.db.defect-1"
    path.write_text(text)
    with pytest.raises(Malformed, match="is no testimony of a bug"):
        read_testimony(path)
    refused = orchestra("prove", "replay", str(path), "--data", str(tmp_path / "farm.db"))
    assert refused.code == 2
    assert not (tmp_path / "farm.db").exists()
