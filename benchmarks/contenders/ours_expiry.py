"""
Workers that fall silent, in the core alone: what it costs to lose 1,000 of them while few, and while many, others live on.

The others joined two thirds of a lease later, so at the silent ones' deadline nothing but those is due, and a scan over all would show.
Also what the looks at the next deadline cost for each heartbeat when all beat in turn, two leases long, in simulated time.
"""

from __future__ import annotations

import argparse
import time

from figures import tell

from orchestra.statemachine import next_deadline
from orchestra.statemachine.commands import Command, JoinWorker, Tick
from orchestra.statemachine.lifecycles import WorkerStatus
from orchestra.statemachine.limits import HEARTBEAT_MS, LEASE_MS
from orchestra.statemachine.records import Worker
from orchestra.statemachine.replies import WorkerJoined
from orchestra.statemachine.reports import Heartbeat
from orchestra.statemachine.state import State
from orchestra.statemachine.step import Stimulus, step

STEP_MS = 10
SILENT = 1_000


class World:
    """Workers, and what they say."""

    def __init__(self) -> None:
        self.state = State()
        self.at_ms = 1_700_000_000_000
        self.beats: list[Heartbeat] = []

    def do(self, command: Command[object]) -> object:
        return step(self.state, Stimulus(command, self.at_ms, 1)).reply

    def join(self, workers: int) -> None:
        """So many more."""
        for _ in range(workers):
            name = f"w{len(self.beats)}"
            joined = self.do(JoinWorker(name, "session", 1, ("process",)))
            if not isinstance(joined, WorkerJoined):
                raise SystemExit(f"the worker was refused: {joined}")
            self.beats.append(Heartbeat(joined.worker_id, joined.incarnation))
        self.look()  # a new deadline is put in order by the first look

    def look(self) -> float:
        """Do what is due now; the CPU seconds that it took."""
        began = time.process_time()
        while True:
            due_ms = next_deadline(self.state)
            if due_ms is None or due_ms > self.at_ms:
                return time.process_time() - began
            self.do(Tick())


def expiry_us(living: int) -> float:
    """A lost worker, in µs."""
    world = World()
    world.join(SILENT)
    world.at_ms += LEASE_MS * 2 // 3
    world.join(living)
    world.at_ms += LEASE_MS // 3 + 1
    spent_s = world.look()
    lost = sum(each.status is WorkerStatus.LOST for each in world.state.each(Worker))
    if lost != SILENT:
        raise SystemExit(f"{lost} workers were lost, not {SILENT}")
    return spent_s / SILENT * 1e6


def look_us(workers: int) -> float:
    """Looks at the next deadline, in µs a heartbeat."""
    world = World()
    world.join(workers)
    spent_s, beats = 0.0, 0
    period = HEARTBEAT_MS // STEP_MS
    for turn in range(2 * LEASE_MS // STEP_MS):
        world.at_ms += STEP_MS
        for beat in world.beats[turn % period :: period]:
            world.do(beat)
            beats += 1
        spent_s += world.look()
    return spent_s / beats * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--few", type=int, default=1_000)
    parser.add_argument("--many", type=int, default=10_000)
    chosen = parser.parse_args()
    few_us, many_us = expiry_us(chosen.few), expiry_us(chosen.many)
    tell(
        {
            "expiry_us": many_us,
            "expiry_growth": many_us / few_us,
            "look_us": look_us(chosen.many),
        }
    )


if __name__ == "__main__":
    main()
