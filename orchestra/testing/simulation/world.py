"""Processes with clocks of their own and a time that leaps: what a simulation runs on, whichever library its event loops are of."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Protocol

PROCESS: ContextVar[MachineProcess | None] = ContextVar(
    "orchestra.simulation.process", default=None
)
"""The simulated process that runs now; None outside of all."""

TURN_S = 1e-9
"""
Each turn of a loop takes so long: who waits until a time that lies less than the loop's resolution ahead is woken at once, and looks
again, for ever if the clock stood still.
"""

MOMENT_S = 1e-6
TURNS_MAX = 200_000
"""Busier than this within a moment is a circle."""


class Stuck(AssertionError):
    """Nothing will ever happen again, and somebody still waits; or somebody goes round and round."""


class MachineProcess:
    """
    A simulated process, with the clock of its machine. Each kind of loop has its own way to hold it and to end it.

    Args:
        name: For the story.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.frozen = False
        self.rate = 1.0
        """How fast its machine's clock goes."""
        self._since_s = (0.0, 0.0)
        """A moment of the world, and what the machine's clock showed then."""

    def shown_s(self, now_s: float) -> float:
        """What its machine's clock shows at a moment of the world."""
        world_s, shown_s = self._since_s
        return shown_s + (now_s - world_s) * self.rate

    def world_s(self, when_s: float) -> float:
        """The moment at which its machine's clock shows ``when_s``."""
        world_s, shown_s = self._since_s
        return world_s + (when_s - shown_s) / self.rate

    def skew(self, rate: float) -> None:
        """From now on its machine's clock goes so fast: all that it waits for comes sooner, or later."""
        raise NotImplementedError

    def turn_clock(self, now_s: float, rate: float) -> None:
        """From this moment of the world on the clock goes so fast, and does not leap."""
        self._since_s = (now_s, self.shown_s(now_s))
        self.rate = rate

    def freeze(self) -> None:
        """Nothing of it runs until `thaw`."""
        self.frozen = True

    def thaw(self) -> None:
        """It goes on; what would have happened meanwhile happens now, in order."""
        self.frozen = False

    def kill(self) -> None:
        """Nothing of it ever runs again."""
        self.alive = False
        self.frozen = False


class Timeline(Protocol):
    """The time of the world, whatever clocks show, and what happens on it from outside of all processes."""

    @property
    def now_s(self) -> float:
        """Seconds from the start."""
        ...

    def at(self, when_s: float, action: Callable[[], object]) -> None:
        """Do something at a moment."""
        ...
