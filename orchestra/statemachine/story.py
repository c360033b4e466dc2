"""The shape of what is told of each move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple, overload

from orchestra.statemachine.values import value

Entry = tuple[int, str, str, str, str, str, str]
"""
One entry of the story as it is written and stored: (at_ms, kind, id, source, verb, target, reason). A thing of this kind went from
``source`` to ``target`` (source empty: it began). A plain tuple, because a small task makes seven of them; `Move` has the names.
"""


_fields_of: Callable[[object], Entry] = attrgetter(
    "at_ms", "kind", "id", "source", "verb", "target", "reason"
)


class Move(NamedTuple):
    """One entry of the story, with names for its parts."""

    kind: str
    id: str
    source: str
    verb: str
    target: str
    reason: str


@value
class Moved:
    """One entry of the story. ``number`` is its cursor: entries are numbered without gaps, and never again."""

    number: int
    at_ms: int
    kind: str
    id: str
    source: str
    verb: str
    target: str
    reason: str


class Told(Sequence[Moved]):
    """
    Entries of the story in a row, as they are stored: numbered from ``first`` on, each made a `Moved` only when it is looked at.

    A small task makes seven of them, and hardly anybody watches them one by one.
    """

    __slots__ = ("entries", "first")

    def __init__(self, first: int, entries: Sequence[Entry]) -> None:
        self.first = first
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, place: int) -> Moved: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Moved]: ...

    def __getitem__(self, place: int | slice) -> Moved | Sequence[Moved]:
        if isinstance(place, slice):
            return tuple(self)[place]
        return Moved(self.first + range(len(self.entries))[place], *self.entries[place])

    @classmethod
    def of(cls, story: Sequence[Moved]) -> Told:
        """The same, stored; its numbers must have no gap."""
        if isinstance(story, Told):
            return story
        return cls(story[0].number if story else 0, [_fields_of(moved) for moved in story])

    def __iter__(self) -> Iterator[Moved]:
        for number, entry in enumerate(self.entries, self.first):
            yield Moved(number, *entry)
