"""
The pure core, without a loop or a store.

``submit``: one job of one task, which is queued and leased in the same step. ``report``: the worker tells that it ran and
completed, which ends the job and frees the slot. ``transition``: one move of one row through the table, with its story.
``claim``: one report and the lease that follows, with few and with many tasks queued behind it.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable

from figures import percentile, tell

from orchestra.statemachine.commands import Command, JoinWorker, StageDraft, SubmitJob
from orchestra.statemachine.lifecycles import TaskStatus, Verb
from orchestra.statemachine.records import Span, Task
from orchestra.statemachine.replies import WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.statemachine.state import State
from orchestra.statemachine.step import Outcome, Stimulus, step
from orchestra.statemachine.transaction import Transaction

APP = "bench:noop"


class World:
    """A state and a clock that moves 1 ms at every step."""

    def __init__(self) -> None:
        self.state = State()
        self.at_ms = 1_700_000_000_000

    def do(self, command: Command[object]) -> Outcome:
        self.at_ms += 1
        return step(self.state, Stimulus(command, self.at_ms, self.at_ms * 0x9E3779B97F4A7C15))

    def join(self, slots: int) -> WorkerJoined:
        reply = self.do(JoinWorker("bench", "session", slots, (APP,))).reply
        if not isinstance(reply, WorkerJoined):
            raise SystemExit(f"the worker was refused: {reply}")
        return reply


def _submit(over: Span | None = None) -> SubmitJob:
    return SubmitJob("bench", (StageDraft("noop", APP, over=over),))


def _ended(worker: WorkerJoined, attempt_id: str) -> AttemptsReported:
    return AttemptsReported(
        worker.worker_id,
        worker.incarnation,
        (
            AttemptReport(attempt_id, Happening.RUNNING),
            AttemptReport(attempt_id, Happening.COMPLETED, result=b"1"),
        ),
    )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began) / 1000


def single_tasks(count: int) -> tuple[float, float]:
    """The median time, in µs, of a submit that leases and of a report that ends the job."""
    world = World()
    worker = world.join(slots=256)
    submits: list[float] = []
    reports: list[float] = []
    leased: list[str] = []
    for _ in range(count // 256):
        for _ in range(256):
            began = time.perf_counter_ns()
            outcome = world.do(_submit())
            submits.append((time.perf_counter_ns() - began) / 1000)
            leased.extend(effect.order.attempt_id for effect in outcome.effects)
        if len(leased) != 256:
            raise SystemExit(f"{len(leased)} of 256 tasks were leased")
        for attempt_id in leased:
            report = _ended(worker, attempt_id)
            reports.append(_timed(lambda report=report: world.do(report)))
        leased.clear()
    return percentile(submits, 50), percentile(reports, 50)


def transition(count: int) -> float:
    """One `Transaction.move` of a task to RUNNING and one back to QUEUED, in µs a move."""
    world = World()
    world.join(slots=1)
    world.do(_submit())
    task = next(world.state.each(Task))
    if task.status is not TaskStatus.LEASED:
        raise SystemExit(f"the task is {task.status}")
    taken: list[float] = []
    for _ in range(count // 100):
        tx = Transaction(world.state, world.at_ms, 1)
        began = time.perf_counter_ns()
        for _ in range(50):
            tx.move(task, Verb.RUN)
        taken.append((time.perf_counter_ns() - began) / 50 / 1000)
        tx.undo()
    return percentile(taken, 50)


def claims(queued: int, count: int) -> float:
    """The median time, in µs, of a report that frees a slot and leases the next of ``queued`` tasks."""
    world = World()
    worker = world.join(slots=1)
    outcome = world.do(_submit(over=Span(0, queued + count + 100)))
    attempt_id = outcome.effects[0].order.attempt_id
    from orchestra.statemachine.commands import Tick
    from orchestra.statemachine.replies import Ticked

    while True:  # large fan-outs are unfolded in slices
        reply = world.do(Tick()).reply
        if not isinstance(reply, Ticked) or reply.next_at_ms != 0:
            break
    gc.freeze()
    taken: list[float] = []
    for _ in range(count):
        report = _ended(worker, attempt_id)
        began = time.perf_counter_ns()
        outcome = world.do(report)
        taken.append((time.perf_counter_ns() - began) / 1000)
        attempt_id = outcome.effects[0].order.attempt_id
    return percentile(taken, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=5_120)
    parser.add_argument("--queued", type=int, default=100_000)
    chosen = parser.parse_args()
    submit_us, report_us = single_tasks(chosen.count)
    few_us = claims(1_000, 1_000)
    many_us = claims(chosen.queued, 1_000)
    tell(
        {
            "submit_us": submit_us,
            "report_us": report_us,
            "transition_us": transition(chosen.count),
            "claim_few_us": few_us,
            "claim_many_us": many_us,
            "claim_growth": many_us / few_us,
        }
    )


if __name__ == "__main__":
    main()
