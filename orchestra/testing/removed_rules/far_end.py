"""What the far end of a worker keeps to."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.statemachine import limits
from orchestra.testing.removed_rules.replacing import Replacement, always
from orchestra.worker.holdings import Holdings
from orchestra.worker.session import WorkerSession


def disowned_in_silence() -> Sequence[Replacement]:
    """A worker is not told that what it runs is not its own any more."""
    return ((Holdings, "disowned", always(())),)


def holds_in_silence() -> Sequence[Replacement]:
    """A worker does not say what it holds."""
    return ((Holdings, "holding", property(always(()))),)


def endless_lease() -> Sequence[Replacement]:
    """A worker that can not renew its lease goes on."""
    return ((WorkerSession, "fenced", always(())),)


def no_margin() -> Sequence[Replacement]:
    """A worker begins to end what it runs when its lease ends, and not before."""
    return ((WorkerSession, "_margin_ms", property(always(0.0))),)


def careless_guardian() -> Sequence[Replacement]:
    """What watches over the work of a frozen worker lets it run."""
    return ((WorkerSession, "guard_s", property(always(limits.TIME_MS_MAX / 1_000))),)


def answers_out_of_time() -> Sequence[Replacement]:
    """An answer that was read too late still starts work."""
    return ((WorkerSession, "fence_s", property(always(None))),)


def short_memory() -> Sequence[Replacement]:
    """A worker forgets what has ended, and begins it again when its order is late."""
    return ((Holdings, "_acknowledge", always(None)),)


def stop_before_start() -> Sequence[Replacement]:
    """An order to stop what never started is passed over, and nobody is told that nothing of it is alive."""
    return ((Holdings, "_hand_back", always(None)),)


def reports_told_once() -> Sequence[Replacement]:
    """A report that was lost on its way is never repeated."""
    return ((Holdings, "unreported", always(None)),)


RULES = (
    disowned_in_silence,
    holds_in_silence,
    endless_lease,
    no_margin,
    careless_guardian,
    answers_out_of_time,
    short_memory,
    stop_before_start,
    reports_told_once,
)
