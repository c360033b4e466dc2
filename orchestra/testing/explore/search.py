"""Breadth-first through a small world: each state once, every invariant at each, and a way to an end from all of them."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from unittest import mock

import attrs

from orchestra.statemachine import limits
from orchestra.testing.explore.bounds import Bounds, Violation
from orchestra.testing.explore.near_end import Taken
from orchestra.testing.explore.world import Whole, World

NONE = 2**32 - 1


@attrs.frozen(slots=True)
class Explored:
    """
    What a search found.

    Args:
        states: How many there are, those that differ by the names of machines counted once.
        steps: How many steps lead from one to another.
        depth: How many steps the longest of the shortest ways has.
        core_steps: How many different steps the core itself took.
        complete: Whether nothing was left out for want of room.
        taken: The rows of the tables that were taken.
        broken: The invariant that does not hold; empty when all do.
        path: What happened until then, the shortest way there.
    """

    name: str
    states: int
    steps: int
    depth: int
    core_steps: int
    seconds: float
    complete: bool
    taken: frozenset[Taken]
    broken: str = ""
    path: tuple[str, ...] = ()


class Search:
    """
    One search.

    Args:
        seen: Called with each state, once.
    """

    def __init__(
        self,
        bounds: Bounds,
        *,
        states_max: int,
        seen: Callable[[Whole], object] | None = None,
    ) -> None:
        self.world = World(bounds)
        self.states_max = states_max
        self.seen = seen
        self.steps = 0
        self.depth = 0
        self._known: dict[bytes, int] = {}
        self._from = array("L")
        self._told = array("L")
        self._words: dict[str, int] = {}
        self._free = (array("L"), array("L"))
        """Steps without trouble: from and to."""
        self._ended: list[int] = []
        self._frontier: deque[tuple[int, int, Whole]] = deque()

    def run(self) -> Explored:
        """Go everywhere."""
        with mock.patch.object(limits, "UNFOLD_SLICE", self.world.bounds.slice):
            return self._run()

    def _run(self) -> Explored:
        began_s = time.monotonic()
        broken, path = "", tuple[str, ...]()
        try:
            self._begin()
            while self._frontier and len(self._known) < self.states_max:
                self._expand()
            if not self._frontier:
                self._check_ways_out()
        except _Found as found:
            broken, path = found.why, self._path(found.at)
        return Explored(
            self.world.bounds.name,
            len(self._known),
            self.steps,
            self.depth,
            self.world.orchestrator.steps,
            time.monotonic() - began_s,
            not self._frontier and not broken,
            frozenset(self.world.orchestrator.taken),
            broken,
            path,
        )

    def _begin(self) -> None:
        self._add(self.world.start(), NONE, "", 0)

    def _expand(self) -> None:
        at, depth, whole = self._frontier.popleft()
        try:
            for step in self.world.steps(whole):
                self.steps += 1
                to = self._add(step.whole, at, step.told, depth + 1)
                if not step.is_trouble and to != at:
                    self._free[0].append(at)
                    self._free[1].append(to)
        except Violation as violation:
            raise _Found(str(violation), at) from violation

    def _add(self, whole: Whole, before: int, told: str, depth: int) -> int:
        key = blake2b(repr(self.world.key(whole)).encode(), digest_size=12).digest()
        known = self._known.get(key)
        if known is not None:
            return known
        at = self._known[key] = len(self._known)
        self._from.append(before)
        self._told.append(self._words.setdefault(told, len(self._words)))
        self.depth = max(self.depth, depth)
        if self.seen is not None:
            self.seen(whole)
        broken = self.world.broken(whole)
        if broken:
            raise _Found(broken, at)
        if whole.near.ended:
            self._ended.append(at)
        self._frontier.append((at, depth, whole))
        return at

    def _check_ways_out(self) -> None:
        """I9: from every state a way without any further trouble leads to the end of all jobs."""
        back: dict[int, list[int]] = {}
        for source, target in zip(*self._free, strict=True):
            back.setdefault(target, []).append(source)
        reached = bytearray(len(self._known))
        waiting = deque(self._ended)
        for at in self._ended:
            reached[at] = 1
        while waiting:
            for source in back.get(waiting.popleft(), ()):
                if not reached[source]:
                    reached[source] = 1
                    waiting.append(source)
        stuck = reached.find(0)
        if stuck >= 0:
            raise _Found("I9: from here no way leads to an end, whatever goes well", stuck)

    def _path(self, at: int) -> tuple[str, ...]:
        words = list(self._words)
        path: list[str] = []
        while at != NONE:
            path.append(words[self._told[at]])
            at = self._from[at]
        return tuple(word for word in reversed(path) if word)


class _Found(Exception):
    def __init__(self, why: str, at: int) -> None:
        super().__init__(why)
        self.why = why
        self.at = at
