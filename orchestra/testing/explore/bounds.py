"""How small a world is: what is in it, and how much of each trouble it may meet. Everything within these bounds is tried."""

from __future__ import annotations

import attrs

from orchestra.statemachine.commands import StageDraft
from orchestra.statemachine.records import OnFailure

SPENT = (
    "lost",
    "doubled",
    "crashes",
    "restarts",
    "failures",
    "leaves",
    "cancels",
    "task_cancels",
    "pauses",
    "revivals",
    "worker_pauses",
    "archives",
    "silences",
)
"""What is counted along a path. Each has a field of the same name in `Bounds`."""


class Violation(AssertionError):
    """An invariant does not hold; the message says which."""


Purse = tuple[int, ...]
"""How much of each of `SPENT` is left."""


@attrs.frozen(slots=True, kw_only=True)
class Bounds:
    """
    One small world.

    Args:
        name: What it is called on the command line.
        about: What it is for, in one sentence.
        stages: The job that is submitted, and a second one if ``second`` is given.
        workers: How many machines there are. They are alike, so worlds that differ by their names only count once.
        slots: How many attempts a worker takes at once.
        apps: What each worker offers, by its place.
        flight: How many messages are on their way at most.
        begins: Whether work tells that it has begun, before it tells that it has ended.
        losses_max: After how many losses a task is given up.
        slice: How many tasks one step unfolds or cancels at most.
        keyed: The jobs are submitted under keys, and again in every state, of which nothing may come.
        lost: Messages that get lost, at most; so are the further fields the most that happens of each.
        silences: How often a process that is well is not heard for a whole lease.
    """

    name: str
    about: str
    stages: tuple[StageDraft, ...] = (StageDraft("only", "app"),)
    second: tuple[StageDraft, ...] = ()
    on_failure: OnFailure = OnFailure.CONTINUE
    workers: int = 2
    slots: int = 1
    flight: int = 3
    begins: bool = True
    losses_max: int = 2
    slice: int = 1_000
    keyed: bool = False
    lost: int = 0
    doubled: int = 0
    crashes: int = 0
    restarts: int = 0
    failures: int = 0
    leaves: int = 0
    cancels: int = 0
    task_cancels: int = 0
    pauses: int = 0
    revivals: int = 0
    worker_pauses: int = 0
    archives: int = 0
    silences: int = 0

    def purse(self) -> Purse:
        """All of it, unspent."""
        return tuple(getattr(self, name) for name in SPENT)


PLACE = {name: place for place, name in enumerate(SPENT)}


def spent(purse: Purse, name: str) -> Purse | None:
    """The purse without one of these; None when none is left."""
    place = PLACE[name]
    if not purse[place]:
        return None
    return (*purse[:place], purse[place] - 1, *purse[place + 1 :])
