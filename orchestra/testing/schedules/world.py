"""What everything in a schedule shares: one clock, one queue of what happens next, one source of chance, and what is truly alive."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from orchestra.testing.diagram import Line
from orchestra.testing.schedules.knobs import Knobs

START_MS = 1_000_000

EVENTS_MAX = 100_000
"""More than any schedule needs: one that takes so many goes in a circle."""


class Violated(AssertionError):
    """A schedule broke an invariant. The message says which, when, and how it is played again."""


class World:
    """
    The clock, the queue, and chance.

    Args:
        seed: Everything that is drawn depends on it alone.
        knobs: What may go wrong.
        told: Keep what happened, for the diagram.
    """

    def __init__(self, seed: int, knobs: Knobs, *, told: bool) -> None:
        self.seed = seed
        self.rng = Random(f"schedule {seed}")
        self.knobs = knobs
        self.now_ms = START_MS
        self.lines: list[Line] | None = [] if told else None
        self.alive: dict[str, dict[str, str]] = {}
        """What truly runs: task id → attempt id → the machine it runs on, whatever anyone believes."""
        self.done: dict[str, bytes] = {}
        """Attempts whose work was truly done, with what it gave."""
        self.begun: set[str] = set()
        """Attempts whose work began."""
        self.taken: set[tuple[str, str | None, str]] = set()
        """Rows of the tables that were taken: kind, status, verb."""
        self.healed = False
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, ms: int, action: Callable[[], None]) -> None:
        """Do something so much later; things of the same moment happen in the order in which they were planned."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_ms + max(0, ms), self._count, action))

    def play(self, until_ms: int, *, going: Callable[[], bool] = lambda: True) -> None:
        """Let things happen until a moment, or until ``going`` no longer holds."""
        played = 0
        while self._queue and going():
            at_ms, _, action = self._queue[0]
            if at_ms > until_ms:
                break
            heapq.heappop(self._queue)
            self.now_ms = at_ms
            action()
            played += 1
            if played > EVENTS_MAX:
                self.violated("I9: things happen for ever, and nothing ends")
        if going():
            self.now_ms = max(self.now_ms, until_ms)

    def meets(self, fault: str) -> bool:
        """Whether this single thing meets a fault of this kind now."""
        if self.healed or fault not in self.knobs.faults:
            return False
        return self.chance(self.knobs.rate)

    def chance(self, share: float) -> bool:
        """True in this share of all cases, from 0 to 1."""
        return self.rng.random() < share

    def hangs(self) -> bool:
        """Whether work that has a limit never ends by itself: rare enough as it is, as few have one."""
        return not self.healed and "hanging" in self.knobs.faults and self.chance(0.5)

    def delay_ms(self) -> int:
        """How long a message is on its way: mostly short, and up to half a minute when the net is slow."""
        if self.meets("slow"):
            return self.rng.randint(50, self.rng.choice((2_000, 9_000, 30_000)))
        return self.rng.randint(0, 20)

    def tell(self, who: str, what: str) -> None:
        """Note what happened, when somebody wants to read it."""
        if self.lines is not None:
            self.lines.append(Line(self.now_ms - START_MS, who, what))

    def violated(self, what: str) -> None:
        """Raise `Violated`."""
        raise Violated(
            f"{what}\nseed {self.seed}, {self.now_ms - START_MS} ms after the start; see it again:\n"
            f"python -m orchestra prove core --seed {self.seed} --schedules 1 --diagram"
        )

    # what is truly alive ----------------------------------------------------------------------------------------

    def born(self, task_id: str, attempt_id: str, machine: str) -> None:
        """The work of an attempt begins to run: it never did before, and with strict fences nothing else of its task may be alive."""
        if attempt_id in self.begun:
            self.violated(f"I4: {attempt_id} begins a second time, on {machine}")
        self.begun.add(attempt_id)
        others = self.alive.setdefault(task_id, {})
        if others and self.knobs.fence == "strict":
            told = ", ".join(f"{other} on {where}" for other, where in others.items())
            self.violated(f"I3: {attempt_id} begins on {machine} while there is alive {told}")
        others[attempt_id] = machine

    def died(self, task_id: str, attempt_id: str) -> None:
        """Nothing of an attempt runs any more."""
        others = self.alive.get(task_id)
        if others is not None:
            others.pop(attempt_id, None)
            if not others:
                del self.alive[task_id]
