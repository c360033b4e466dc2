"""
What goes wrong in one schedule, and how often: drawn anew for each seed.

Some faults are left out altogether in each draw, so that those that hide one another are also met alone (swarm testing; Groce et al.,
ISSTA 2012).
"""

from __future__ import annotations

from random import Random
from typing import Literal

import attrs

from orchestra.statemachine import limits

FAULTS = (
    "drop",
    "duplicate",
    "slow",
    "cut",
    "crash_worker",
    "freeze_worker",
    "crash_server",
    "stall_server",
    "fail_commit",
    "stubborn",
    "failing",
    "hanging",
    "forge",
    "steering",
)
"""
The faults by name.

``stubborn`` work does not listen to being asked, ``hanging`` work that has a limit never ends by itself, ``forge`` is a worker that
reports what others run, and ``steering`` is no fault of a machine: people who cancel, pause, resume and retry.
"""


HALF = 0.5


@attrs.frozen(slots=True)
class Knobs:
    """
    One draw.

    Args:
        faults: What may happen at all.
        workers: How many machines, each with so many ``slots``.
        jobs: How many jobs are submitted.
        fence: What workers do when they can not renew their lease; see `orchestra.worker.session`.
        trouble_ms: How long faults go on; afterwards everything heals, and all work has to end.
        rate: How likely a single message or commit meets a fault of its kind, from 0 to 1.
        check_every: All invariants of the state are checked after every so many steps.
        reserve_after_ms: What has waited so long for room has it kept free; see `orchestra.statemachine.scheduling`.
    """

    faults: frozenset[str]
    workers: int
    slots: int
    jobs: int
    fence: Literal["strict", "patient"]
    trouble_ms: int
    rate: float
    check_every: int
    reserve_after_ms: int = limits.RESERVE_AFTER_MS


def draw(rng: Random) -> Knobs:
    """A draw for one schedule: each fault is on in half of them."""
    return Knobs(
        faults=frozenset(fault for fault in FAULTS if rng.random() < HALF),
        workers=rng.randint(1, 3),
        slots=rng.randint(1, 3),
        jobs=rng.randint(1, 3),
        fence=rng.choice(("strict", "strict", "strict", "patient")),
        trouble_ms=rng.choice((5_000, 20_000, 60_000)),
        rate=rng.choice((0.02, 0.1, 0.3)),
        check_every=rng.choice((1, 5, 25)),
        reserve_after_ms=rng.choice((0, 2_000, limits.RESERVE_AFTER_MS)),
    )
