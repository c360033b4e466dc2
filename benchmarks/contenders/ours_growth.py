"""
The core with 1,000 and with 1,000,000 queued tasks: what a claim and a submit cost, and what a queued task weighs.

A claim is a report that ends one task and gives its slot to the next of the queue; a submit is a job of one task that queues behind all
others. Both are timed in CPU time, one by one, and the medians are shown. Memory is what the process grew by.
"""

from __future__ import annotations

import argparse
import gc
import os
import time

from figures import percentile, tell
from http_load import resident_bytes_of

from orchestra.statemachine.commands import Command, JoinWorker, StageDraft, SubmitJob, Tick
from orchestra.statemachine.effects import StartAttempt
from orchestra.statemachine.records import Span
from orchestra.statemachine.replies import JobAccepted, Ticked, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening
from orchestra.statemachine.state import State
from orchestra.statemachine.step import Outcome, Stimulus, step

APP = "bench:noop"


class World:
    """One worker of one slot, and a queue."""

    def __init__(self, queued: int) -> None:
        self.state = State()
        self.at_ms = 1_700_000_000_000
        joined = self.do(JoinWorker("bench", "session", 1, (APP,))).reply
        if not isinstance(joined, WorkerJoined):
            raise SystemExit(f"the worker was refused: {joined}")
        self._worker = joined
        outcome = self.do(SubmitJob("large", (StageDraft("noop", APP, over=Span(0, queued)),)))
        self._running = self._started(outcome)
        while True:  # large fan-outs are unfolded in slices
            outcome = self.do(Tick())
            self._running = self._started(outcome) or self._running
            if not isinstance(outcome.reply, Ticked) or outcome.reply.next_at_ms != 0:
                break

    def do(self, command: Command[object]) -> Outcome:
        self.at_ms += 1
        return step(self.state, Stimulus(command, self.at_ms, self.at_ms * 0x9E3779B97F4A7C15))

    @staticmethod
    def _started(outcome: Outcome) -> str:
        started = [each for each in outcome.effects if isinstance(each, StartAttempt)]
        return started[-1].order.attempt_id if started else ""

    def claim_us(self, count: int) -> float:
        """The median of so many claims."""
        taken: list[float] = []
        for _ in range(count):
            reports = (AttemptReport(self._running, Happening.COMPLETED, result=b"1"),)
            report = AttemptsReported(self._worker.worker_id, self._worker.incarnation, reports)
            began = time.process_time_ns()
            outcome = self.do(report)
            taken.append((time.process_time_ns() - began) / 1000)
            self._running = self._started(outcome)
            if not self._running:
                raise SystemExit("nothing was claimed")
        return percentile(taken, 50)

    def submit_us(self, count: int) -> float:
        """The median of so many submits."""
        command = SubmitJob("small", (StageDraft("noop", APP),))
        taken: list[float] = []
        for _ in range(count):
            began = time.process_time_ns()
            outcome = self.do(command)
            taken.append((time.process_time_ns() - began) / 1000)
            if not isinstance(outcome.reply, JobAccepted):
                raise SystemExit(f"the job was refused: {outcome.reply}")
        return percentile(taken, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--count", type=int, default=500)
    chosen = parser.parse_args()
    few = World(chosen.few)
    few_claim_us, few_submit_us = few.claim_us(chosen.count), few.submit_us(chosen.count)
    gc.collect()
    before = resident_bytes_of(os.getpid())
    gc.disable()  # nothing in here is a circle, and looking through a million tasks is not what is measured
    many = World(chosen.many)
    bytes_per_task = (resident_bytes_of(os.getpid()) - before) / chosen.many
    claim_us, submit_us = many.claim_us(chosen.count), many.submit_us(chosen.count)
    tell(
        {
            "claim_us": claim_us,
            "submit_us": submit_us,
            "claim_growth": claim_us / few_claim_us,
            "submit_growth": submit_us / few_submit_us,
            "bytes_per_task": bytes_per_task,
        }
    )


if __name__ == "__main__":
    main()
