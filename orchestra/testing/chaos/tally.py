"""What was done to a farm, how long it took to recover, and what was broken."""

from __future__ import annotations

import math
from collections import Counter

import attrs

SERVER_S = 2.0
"""Work goes on within this time of a server's return."""

WORKER_S = 10.0
"""What a lost worker ran runs elsewhere within this time: a lease of 6 s, and what it takes to notice and to start."""

GONE_S = 5.0
"""No process of a task outlives its worker for longer."""

DRAIN_S = 30.0
"""Whoever is asked to end has ended within this time."""


@attrs.define(slots=True)
class Tally:
    """
    The count of one kind of trouble.

    Attributes:
        struck: How often it came: each killed, frozen or cut process counts.
        recoveries_s: Seconds, by what was waited for.
        counts: What else was counted, by what it is.
        laws: How often each law was broken that is looked at in the end; 0 stands for one that held.
        broken: Sentences about laws that were broken.
    """

    struck: int = 0
    recoveries_s: dict[str, list[float]] = attrs.field(factory=dict[str, list[float]])
    counts: Counter[str] = attrs.field(factory=Counter[str])
    laws: Counter[str] = attrs.field(factory=Counter[str])
    broken: list[str] = attrs.field(factory=list[str])

    def recovered(self, what: str, seconds: float | None, bound_s: float) -> None:
        """Something was waited for and came after ``seconds``, or not at all; more than the bound breaks a law."""
        took_s = math.inf if seconds is None else seconds
        self.recoveries_s.setdefault(what, []).append(took_s)
        if took_s > bound_s:
            told = "did not come" if math.isinf(took_s) else f"took {took_s:.2f} s"
            self.broken.append(f"{what}: {told}, the bound is {bound_s:g} s")

    def add(self, other: Tally) -> None:
        """Another one of the same kind."""
        self.struck += other.struck
        self.counts.update(other.counts)
        self.laws.update(other.laws)
        self.broken += other.broken
        for what, found in other.recoveries_s.items():
            self.recoveries_s.setdefault(what, []).extend(found)

    def figures(self) -> list[tuple[str, str]]:
        """Each recovery with its median, its 99th percentile and its maximum, and what else was counted."""
        rows = [(what, spread(found)) for what, found in sorted(self.recoveries_s.items())]
        return rows + [(what, f"{count:,}") for what, count in sorted(self.counts.items())]


def spread(seconds: list[float]) -> str:
    """Median, 99th percentile and maximum, by nearest rank."""
    ordered = sorted(seconds)
    if not ordered:
        return "never"
    p50, p99 = (ordered[max(0, math.ceil(len(ordered) * part) - 1)] for part in (0.5, 0.99))
    return f"p50 {p50:.2f} s, p99 {p99:.2f} s, max {ordered[-1]:.2f} s ({len(ordered):,} times)"
