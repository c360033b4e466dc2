"""
Faces: what a thing looks like to anybody but a clock and a name tag.

Two things with the same face behave the same for ever, so only one of them has to be explored. A face leaves out words for people and
times that nothing goes by, tells times as ages, and is made once for each way to rename the machines, which are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import permutations

Renaming = tuple[int, ...]
"""Where the machine at each place goes."""

STEP_MS = 2_000
"""Time passes in steps of one heartbeat: a third of a lease, half of what a worker waits before it fences."""

STALE_STEPS = 3
"""After so many steps a lease is over, and a greater age changes nothing more."""


def renamings(machines: int, *, alike: bool = True) -> tuple[Renaming, ...]:
    """Every way to rename the machines; only the one that leaves them as they are when they differ. That one is the first."""
    if not alike:
        return (tuple(range(machines)),)
    return tuple(permutations(range(machines)))


def machine_name(place: int) -> str:
    """What the machine at a place is called."""
    return f"w{place}"


def renamed(name: str, renaming: Renaming) -> str:
    """The name of a machine, or of a session on it, after a renaming."""
    machine, dot, rest = name.partition(".")
    return f"{machine_name(renaming[int(machine[1:])])}{dot}{rest}"


class Register:
    """Numbers for faces: equal faces have one number."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def number(self, face: Hashable) -> int:
        """The number of a face."""
        return self._numbers.setdefault(face, len(self._numbers))

    def faces(
        self, look: Callable[[Renaming], Hashable], ways: tuple[Renaming, ...]
    ) -> tuple[int, ...]:
        """The numbers of what ``look`` sees under each renaming."""
        return tuple(self.number(look(way)) for way in ways)
