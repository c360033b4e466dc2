# pyright: reportMissingImports=false
# (both libraries are installed in environments of their own only)
"""
One bare move of a state machine of one task, by other libraries: QUEUED to LEASED, LEASED to RUNNING, and back to QUEUED.

``transitions`` and ``python-statemachine`` change an attribute of an object and call what is hooked to it. They keep no row, tell no story
and undo nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from collections.abc import Callable

from figures import percentile, tell

MOVES = (
    ("lease", "queued", "leased"),
    ("run", "leased", "running"),
    ("requeue", "running", "queued"),
)
"""(event, source, target)."""


def of_transitions() -> list[Callable[[], object]]:
    """The events of a machine of ``transitions``."""
    from transitions import Machine

    class Task:
        state: str

    task = Task()
    Machine(
        task,
        states=["queued", "leased", "running"],
        transitions=[list(move) for move in MOVES],
        initial="queued",
        auto_transitions=False,
    )
    return [getattr(task, event) for event, _, _ in MOVES]


def of_statemachine() -> list[Callable[[], object]]:
    """The events of a machine of ``python-statemachine``."""
    from statemachine import State, StateMachine

    class Task(StateMachine):
        queued = State(initial=True)
        leased = State()
        running = State()
        lease = queued.to(leased)
        run = leased.to(running)
        requeue = running.to(queued)

    task = Task()
    return [getattr(task, event) for event, _, _ in MOVES]


PACKAGES = {"transitions": of_transitions, "python-statemachine": of_statemachine}


def move_us(events: list[Callable[[], object]], count: int) -> float:
    """The median time of a move, in µs, over slices of 150 moves."""
    taken: list[float] = []
    for _ in range(count // 150):
        began = time.perf_counter()
        for _ in range(50):
            for event in events:
                event()
        taken.append((time.perf_counter() - began) / 150 * 1e6)
    return percentile(taken, 50)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--of", choices=tuple(PACKAGES), required=True)
    parser.add_argument("--count", type=int, default=15_000)
    chosen = parser.parse_args()
    figure = move_us(PACKAGES[chosen.of](), chosen.count)
    tell({"transition_us": figure, "version": importlib.metadata.version(chosen.of)})


if __name__ == "__main__":
    main()
