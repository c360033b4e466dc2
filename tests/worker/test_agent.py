"""The agent against a real orchestrator, over a link that fails when told to."""

from __future__ import annotations

import time
from contextlib import nullcontext

import anyio
import pytest

from orchestra.errors import Unauthenticated
from orchestra.ports import Ended
from orchestra.statemachine.commands import (
    CancelJob,
    Command,
    JoinWorker,
    LeaveWorker,
)
from orchestra.statemachine.queries import ListWorkers
from orchestra.statemachine.records import Rung
from orchestra.statemachine.reports import AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.worker.detect import Vitals
from orchestra.worker.session import WorkerReplaced
from tests.worker.kit import BOUND_S, ScriptedEngine, farm, until

pytestmark = pytest.mark.anyio

DONE = Ended("completed", result=b"1")


async def test_a_job_runs_and_every_attempt_once() -> None:
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        agent = await it.join(engine, slots=16)
        job = await it.until_job(await it.submit(tasks=300))
        assert job.counts["completed"] == 300
        ids = [each.attempt_id for each in engine.started]
        assert len(set(ids)) == len(ids) == 300
        await until(lambda: agent.holding == ())


async def test_short_work_is_reported_once_and_many_ends_in_one_message() -> None:
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        await it.join(engine, slots=200)
        await it.until_job(await it.submit(tasks=200))
        messages = it.link.of(AttemptsReported)
        reports = [report for message in messages for report in message.reports]
        assert [each.happening for each in reports] == [Happening.COMPLETED] * 200
        assert len(messages) < 20


async def test_running_and_progress_are_told_of_work_that_lasts() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit()
        await it.until_job(job_id, "running")
        await until(lambda: bool(engine.running))
        (attempt_id,) = engine.running
        await engine.running[attempt_id].progress(attempt_id, 0.5, "half")
        with anyio.fail_after(BOUND_S):
            while (await it.task(job_id)).attempts[0].progress != 0.5:
                await anyio.sleep(0.005)
        assert (await it.task(job_id)).status == "running"


@pytest.mark.parametrize("healed", [True, False])
async def test_lost_pushes_are_healed_by_the_next_beat(healed: bool) -> None:
    """Without the repairs in the beats' answers (the negative control) nothing ever starts."""
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        await it.pace(3_000, 50)
        await it.join(engine)
        it.link.lose_pushes = True
        it.link.strip_orders = not healed
        job_id = await it.submit(tasks=4)
        if healed:
            await it.until_job(job_id)
        beats = len(it.link.of(Heartbeat))
        await until(lambda: len(it.link.of(Heartbeat)) > beats + 3)
        assert len(engine.started) == (4 if healed else 0)


async def test_a_stop_climbs_the_ladder_and_ends_the_job() -> None:
    engine = ScriptedEngine(obeys=Rung.TERM)
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        await it.orchestrator.ask(CancelJob(job_id, grace_ms=50))
        await it.until_job(job_id, "cancelled")
        assert [rung for _, rung, _ in engine.stops][:2] == ["asked", "term"]


async def test_work_goes_on_through_a_restart_of_the_server_and_is_handed_in_afterwards() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        job_id = await it.submit(tasks=4)
        await until(lambda: len(engine.running) == 4)
        await it.stop_serving()
        first, second, *_ = tuple(engine.running)
        await engine.end(first, DONE)
        await engine.end(second, Ended("completed", result=b"2"))
        await it.serve_again()
        returned_s = time.monotonic()
        await until(lambda: it.link.connections == 2)
        await engine.complete()
        job = await it.until_job(job_id)
        assert time.monotonic() - returned_s < 2
        assert job.counts["completed"] == 4
        assert len(engine.started) == 4, "nothing ran twice"
        assert engine.stops == []
        assert len(await it.moves("task", "complete")) == 4
        assert len(it.link.of(JoinWorker)) == 1, "a beat is enough for a worker that is known"


@pytest.mark.parametrize("fence", ["strict", "patient"])
async def test_a_worker_that_is_cut_off_ends_its_work_before_its_lease_ends(fence: str) -> None:
    """A patient worker does not (the negative control): then two run at the same time."""
    engine = ScriptedEngine(obeys=Rung.KILL)
    elsewhere = ScriptedEngine()
    async with farm() as it:
        await it.pace(1_500, 500)
        await it.join(engine, fence=fence)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        it.link.hush = True
        await it.join(elsewhere, "spare", connect=it.around)
        await until(lambda: bool(elsewhere.running))
        assert bool(engine.running) is (fence == "patient")
        if fence == "strict":
            ((_, rung, killed_s),) = engine.stops
            assert rung == "kill"
            lasted_s = killed_s - it.link.renewed_s
            assert 0.9 < lasted_s < 1.5, "after lease - margin, before the lease"
        it.link.hush = False
        await elsewhere.complete()
        await it.until_job(job_id)
        attempts = (await it.task(job_id)).attempts
        assert [each.status for each in attempts] == ["failed", "completed"]


async def test_a_late_result_is_kept_as_evidence_and_changes_nothing() -> None:
    engine = ScriptedEngine(obeys=Rung.UNCONFIRMED)
    async with farm() as it:
        await it.pace(400, 100)
        await it.join(engine, fence="patient", slots=1)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        it.link.cut()
        with anyio.fail_after(BOUND_S):
            while (await it.orchestrator.answer(ListWorkers())).items[0].status != "lost":
                await anyio.sleep(0.01)
        await it.pace(6_000, 100)
        it.link.up = True
        # It finds its old attempt gone, and is given the new one, under a new number.
        await until(lambda: len(engine.started) == 2)
        first, second = (each.attempt_id for each in engine.started)
        await until(lambda: (first, "kill") in [stop[:2] for stop in engine.stops])
        await engine.end(first, Ended("completed", result=b'"late"'))
        await engine.end(second, Ended("completed", result=b'"now"'))
        await it.until_job(job_id)
        with anyio.fail_after(BOUND_S):
            while not (await it.task(job_id)).attempts[0].late_outcome:
                await anyio.sleep(0.01)
        late, now = (await it.task(job_id)).attempts
        assert (late.late_outcome, late.result) == ("completed", None)
        assert now.result == b'"now"'
        assert len(await it.moves("task", "complete")) == 1


async def test_a_report_whose_answer_is_lost_is_sent_again_and_counts_once() -> None:
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        agent = await it.join(engine)
        it.link.lose_answers = 3
        await it.until_job(await it.submit(tasks=3))
        await until(lambda: agent.holding == ())
        ends = [
            report.attempt_id
            for message in it.link.of(AttemptsReported)
            for report in message.reports
        ]
        assert len(ends) > len(set(ends)) == 3, "the fault did hit"
        assert len(await it.moves("task", "complete")) == 3
        assert len(engine.started) == 3


async def test_a_name_that_is_taken_stops_the_former_process_and_its_work() -> None:
    engine, successor = ScriptedEngine(obeys=Rung.KILL), ScriptedEngine()
    async with farm() as it:
        await it.pace(3_000, 50)
        problems: list[WorkerReplaced] = []
        agent = it.agent(engine)

        async def run() -> None:
            try:
                await agent.run()
            except WorkerReplaced as error:
                problems.append(error)

        it.group.start_soon(run)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        await it.join(successor)
        await until(lambda: bool(problems))
        assert "'w'" in problems[0].message
        assert not engine.running
        await until(lambda: bool(successor.running))
        await successor.complete()
        await it.until_job(job_id)


async def test_a_process_that_was_replaced_while_it_was_away_does_not_take_its_name_back() -> None:
    engine, successor = ScriptedEngine(obeys=Rung.KILL), ScriptedEngine()
    async with farm() as it:
        agent = it.agent(engine)
        problems: list[WorkerReplaced] = []

        async def run() -> None:
            try:
                await agent.run()
            except WorkerReplaced as error:
                problems.append(error)

        it.group.start_soon(run)
        await until(lambda: agent.worker_id != "")
        await until(lambda: bool(it.link.of(Heartbeat)))
        it.link.cut()
        second = await it.join(successor, connect=it.around)
        it.link.up = True
        await until(lambda: bool(problems))
        workers = await it.orchestrator.answer(ListWorkers())
        assert [each.id for each in workers.items if each.status == "online"] == [second.worker_id]


async def test_a_server_that_forgot_the_worker_is_joined_anew_and_strange_work_ended() -> None:
    engine = ScriptedEngine(obeys=Rung.KILL)
    async with farm() as it:
        agent = await it.join(engine)
        await it.submit()
        await until(lambda: bool(engine.running))
        former = agent.worker_id
        await it.stop_serving()
        await it.serve_again(MemoryStore())
        await until(lambda: agent.worker_id != former)
        await until(lambda: not engine.running and agent.holding == ())
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        await engine.complete()
        await it.until_job(job_id)


async def test_a_drain_lets_work_finish_takes_nothing_new_and_says_goodbye() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        agent = await it.join(engine, slots=2)
        job_id = await it.submit(tasks=3)
        await until(lambda: len(engine.running) == 2)
        async with anyio.create_task_group() as group:
            group.start_soon(agent.drain)
            await until(lambda: len(it.link.of(JoinWorker)) == 2)
            await engine.complete()
        assert len(engine.started) == 2
        assert engine.stops == []
        assert it.link.of(LeaveWorker)
        job = await it.job(job_id)
        assert (job.counts["completed"], job.counts["queued"]) == (2, 1)
        assert (await it.orchestrator.answer(ListWorkers(gone=True))).items[0].status == "left"


async def test_a_drain_hands_back_what_does_not_finish_in_time_and_it_is_no_loss() -> None:
    engine = ScriptedEngine(obeys=Rung.TERM)
    async with farm() as it:
        agent = await it.join(engine)
        job_id = await it.submit()
        await until(lambda: bool(engine.running))
        with anyio.fail_after(5):
            await agent.drain(drain_ms=20)
        assert [rung for _, rung, _ in engine.stops] == ["term"]
        task = await it.task(job_id)
        assert (task.status, task.losses) == ("queued", 0)
        assert "shutting down" in task.attempts[0].message


async def test_work_that_is_on_its_way_to_a_worker_that_drains_is_handed_back_and_no_loss() -> None:
    """Its order was given and has not come: what holds nothing must not just say goodbye."""
    engine = ScriptedEngine()
    async with farm() as it:
        agent = await it.join(engine)
        it.link.lose_pushes = True
        job_id = await it.submit()
        assert (await it.task(job_id)).status == "leased"
        with anyio.fail_after(5):
            await agent.drain()
        assert engine.started == []
        task = await it.task(job_id)
        assert (task.status, task.losses) == ("queued", 0)
        assert it.link.of(LeaveWorker)


async def test_a_drain_before_the_answer_to_its_join_says_goodbye_too() -> None:
    async with farm() as it:
        it.link.hold_joins = anyio.Event()
        agent = it.agent(ScriptedEngine())
        it.group.start_soon(agent.run)
        with anyio.fail_after(BOUND_S):
            while not (await it.orchestrator.answer(ListWorkers())).items:
                await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as group:
                group.start_soon(agent.drain)
                await anyio.wait_all_tasks_blocked()
                it.link.hold_joins.set()
        assert it.link.of(LeaveWorker)
        assert (await it.orchestrator.answer(ListWorkers(gone=True))).items[0].status == "left"


async def test_a_drain_while_the_server_is_away_ends_in_time() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        agent = await it.join(engine)
        await it.submit()
        await until(lambda: bool(engine.running))
        it.link.cut()
        with anyio.fail_after(8):
            await agent.drain(drain_ms=10)
        assert not engine.running


async def test_a_worker_waits_for_a_server_that_is_not_there_yet() -> None:
    engine = ScriptedEngine(instant=DONE)
    async with farm() as it:
        it.link.up = False
        agent = it.agent(engine)
        it.group.start_soon(agent.run)
        job_id = await it.submit()
        it.link.up = True
        await it.until_job(job_id)


async def test_a_worker_that_is_refused_says_so() -> None:
    class Strict:
        async def ask(self, command: Command[object], *, key: str = "") -> object:
            del command, key
            raise Unauthenticated("no valid token", remedy="give one with --token")

    async with farm() as it:
        agent = it.agent(ScriptedEngine(), connect=lambda: nullcontext(Strict()))
        with pytest.raises(Unauthenticated, match="--token"):
            await agent.run()


async def test_vitals_travel_with_the_beats() -> None:
    async with farm() as it:
        await it.pace(3_000, 50)
        await it.join(ScriptedEngine(), vitals=lambda: Vitals(0.5, 7, 9))
        await until(lambda: any(beat.disk_free_bytes == 9 for beat in it.link.of(Heartbeat)))
        beat = it.link.of(Heartbeat)[-1]
        assert (beat.load, beat.memory_free_bytes) == (0.5, 7)


async def test_the_guardians_of_engines_are_told_of_every_renewal() -> None:
    engine = ScriptedEngine()
    async with farm() as it:
        await it.join(engine)
        now_s = time.monotonic()
        assert now_s + 3 < engine.lease_until_s < now_s + 6
