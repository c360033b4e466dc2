"""
A graph of 100,000 tasks in the pure core: 1,000 chains of 100, given out and reported until the job is over.

A worker with 256 slots reports up to 256 ends in one message, as the agent does. What is timed is every step of the core: accepting the
job, making its tasks, giving each out and taking each end, with the story of all moves.
"""

from __future__ import annotations

import argparse
import gc
import time

from figures import memory_peak_bytes, tell

from orchestra.statemachine.commands import Command, JoinWorker, StageDraft, SubmitJob, Tick
from orchestra.statemachine.effects import StartAttempt
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.records import Job, Span
from orchestra.statemachine.replies import Ticked, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.statemachine.state import State
from orchestra.statemachine.step import Outcome, Stimulus, step

SLOTS = 256


class World:
    """A state, and the CPU time that its steps took."""

    def __init__(self) -> None:
        self.state = State()
        self.at_ms = 1_700_000_000_000
        self.spent_s = 0.0
        self.ready: list[str] = []

    def do(self, command: Command[object]) -> Outcome:
        self.at_ms += 1
        stimulus = Stimulus(command, self.at_ms, self.at_ms * 0x9E3779B97F4A7C15)
        began = time.process_time()
        outcome = step(self.state, stimulus)
        self.spent_s += time.process_time() - began
        for effect in outcome.effects:
            if isinstance(effect, StartAttempt):
                self.ready.append(effect.order.attempt_id)
        return outcome

    def unfold(self) -> None:
        """Large jobs are made in slices."""
        while True:
            reply = self.do(Tick()).reply
            if not isinstance(reply, Ticked) or reply.next_at_ms != 0:
                return


def run(chains: int, length: int) -> float:
    """CPU seconds in the core."""
    world = World()
    joined = world.do(JoinWorker("bench", "session", SLOTS, ("bench:noop",))).reply
    if not isinstance(joined, WorkerJoined):
        raise SystemExit(f"the worker was refused: {joined}")
    stages = tuple(
        StageDraft(
            f"step-{number}",
            "bench:noop",
            over=Span(0, chains),
            pairwise=(f"step-{number - 1}",) if number else (),
        )
        for number in range(length)
    )
    world.do(SubmitJob("dag", stages))
    ended = 0
    while True:
        world.unfold()
        told, world.ready = world.ready[:SLOTS], world.ready[SLOTS:]
        if not told:
            break
        reports = tuple(AttemptReport(id, Happening.COMPLETED, result=b"1") for id in told)
        world.do(AttemptsReported(joined.worker_id, joined.incarnation, reports))
        ended += len(told)
    job = next(world.state.each(Job))
    if ended != chains * length or job.status is not JobStatus.COMPLETED:
        raise SystemExit(f"{ended} tasks ended, and the job is {job.status}")
    return world.spent_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--chains", type=int, default=1_000)
    parser.add_argument("--length", type=int, default=100)
    chosen = parser.parse_args()
    tasks = chosen.chains * chosen.length
    gc.set_threshold(50_000, 20, 50)  # as an app has it while it runs
    spent_s = run(chosen.chains, chosen.length)
    tell(
        {
            "task_us": spent_s / tasks * 1e6,
            "tasks": tasks,
            "memory_peak_mib": memory_peak_bytes() / 2**20,
        }
    )


if __name__ == "__main__":
    main()
