"""The shape of a lifecycle table: rows of (source, verb, target, why), and what can be asked of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from orchestra.statemachine.values import value

Walk = tuple[tuple[str, str, str], ...]
"""Legal moves one after the other: (source, verb, target) of each; the source is empty where a thing begins."""


@value
class Row:
    """One legal move. ``source`` is None for a row by which a thing begins."""

    source: str | None
    verb: str
    target: str
    why: str


class Table:
    """
    All legal moves of one kind of thing.

    Args:
        kind: The kind's name, such as ``task``.
        rows: The moves. For one (source, verb) there is at most one row, so a verb decides.
    """

    def __init__(self, kind: str, rows: Iterable[Row]) -> None:
        self.kind = kind
        self.rows = tuple(rows)
        self._targets: dict[tuple[str | None, str], str] = {}
        for row in self.rows:
            if (row.source, row.verb) in self._targets:
                raise ValueError(f"{kind}: two rows for {row.source} --{row.verb}-->")
            self._targets[row.source, row.verb] = row.target
        self._walks: dict[tuple[str, tuple[str, ...]], Walk | None] = {}
        self._edges = {(row.source, row.target) for row in self.rows}
        self._leaving = {row.source for row in self.rows if row.source != row.target}

    def target(self, source: str | None, verb: str) -> str | None:
        """Where ``verb`` leads from ``source``; None when there is no such move."""
        return self._targets.get((source, verb))

    def walk(self, source: str, verbs: tuple[str, ...]) -> Walk | None:
        """The moves that ``verbs`` make from ``source`` (empty: from before the beginning); None when one of them is not legal there."""
        key = (source, verbs)
        if key not in self._walks:
            self._walks[key] = self._walked(source, verbs)
        return self._walks[key]

    def _walked(self, source: str, verbs: tuple[str, ...]) -> Walk | None:
        moves: list[tuple[str, str, str]] = []
        for verb in verbs:
            target = self.target(source or None, verb)
            if target is None:
                return None
            moves.append((source, verb, target))
            source = target
        return tuple(moves)

    def has_edge(self, source: str | None, target: str) -> bool:
        """Whether some verb leads from ``source`` to ``target``."""
        return (source, target) in self._edges

    def is_final(self, status: str) -> bool:
        """Whether no move leaves ``status``."""
        return status not in self._leaving

    def verbs(self, source: str | None) -> tuple[str, ...]:
        """The verbs that are legal in ``source``, in table order."""
        return tuple(row.verb for row in self.rows if row.source == source)

    def statuses(self) -> tuple[str, ...]:
        """Every status, in the order in which the table first names it as a target."""
        return tuple(dict.fromkeys(row.target for row in self.rows))

    def path(self, source: str, target: str) -> tuple[Row, ...] | None:
        """
        The shortest legal moves from ``source`` to ``target``.

        An observer that polls can miss moves (a container seen ``completed`` while we believe ``started``); this
        yields the moves to catch up. Empty when both are the same, None when there is no way.
        """
        found: dict[str, tuple[Row, ...]] = {source: ()}
        waiting = deque([source])
        while waiting and target not in found:
            status = waiting.popleft()
            for row in self.rows:
                if row.source == status and row.target not in found:
                    found[row.target] = (*found[status], row)
                    waiting.append(row.target)
        return found.get(target)
