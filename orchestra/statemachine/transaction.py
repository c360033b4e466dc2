"""The only door through which handlers and rules read and change the state, with an undo list."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from random import Random
from typing import NamedTuple, TypeVar, cast

from orchestra.errors import Conflict, Defect, NotFound
from orchestra.statemachine import ids
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.lifecycles import TABLES, Verb
from orchestra.statemachine.records import KIND_OF, Living, Record, Settings, evolve
from orchestra.statemachine.state import State

T = TypeVar("T", bound=Record)
L = TypeVar("L", bound=Living)

_status_of: Callable[[Record], str] = attrgetter("status")
"""For records of which only the kind is known, and that the kind has a table."""


class Move(NamedTuple):
    """One entry of the story: a thing of this kind went from ``source`` to ``target`` (source empty: it began)."""

    kind: str
    id: str
    source: str
    verb: str
    target: str
    reason: str


_REASONED = frozenset({"task", "job"})
"""Kinds whose rows say why they are as they are: the reason of the last move."""


class Transaction:
    """
    One step's view of the state.

    A refusal raised anywhere undoes every row that was put. ``now_ms`` and ``rng`` come from the stimulus: nothing here asks a clock.
    """

    def __init__(self, state: State, now_ms: int, seed: int, principal: str = "") -> None:
        self.state = state
        self.now_ms = now_ms
        self.principal = principal
        self.changes: dict[tuple[str, str], Record] = {}
        self.drops: dict[tuple[str, str], None] = {}
        self.effects: list[Effect] = []
        self.story: list[Move] = []
        self.touched: list[tuple[Record | None, Record]] = []
        self._undo: list[tuple[str, str, Record | None]] = []
        self._seed = seed
        self._drawn = False
        self._rng: Random | None = None

    @property
    def rng(self) -> Random:
        """Randomness that depends on the stimulus alone."""
        if self._rng is None:
            self._rng = Random(self._seed)
        return self._rng

    def new_id(self, number: int) -> str:
        """The id of a project, job or worker with this number."""
        if self._drawn:
            return ids.new_id(number, self.rng.getrandbits(ids.RANDOM_BITS))
        # The seed itself is random: the first id needs no generator, whose making costs as much as ten rows.
        self._drawn = True
        return ids.new_id(number, self._seed)

    @property
    def settings(self) -> Settings:
        return self.state.settings

    def find(self, kind: type[T], id: str) -> T | None:
        """The row, or None."""
        return cast("T | None", self.state.rows[KIND_OF[kind]].get(id))

    def get(self, kind: type[T], id: str) -> T:
        """The row. Raises `NotFound`."""
        row = self.state.rows[KIND_OF[kind]].get(id)
        if row is None:
            name = KIND_OF[kind]
            raise NotFound(f"there is no {name} {id!r}", where=f"{name}_id")
        return cast("T", row)

    def put(self, record: T) -> T:
        """Store a row. Raises `Defect` when its status changes along an edge that is not in the table."""
        kind = KIND_OF[type(record)]
        rows = self.state.rows[kind]
        id = record.id
        old = rows.get(id)
        table = TABLES.get(kind)
        if table is not None:
            before = None if old is None else _status_of(old)
            after = _status_of(record)
            if before != after and not table.has_edge(before, after):
                raise Defect(f"{kind} {id}: no edge {before} -> {after}", story=tuple(self.story))
        self._store(kind, record)
        return record

    def _store(self, kind: str, record: Record) -> None:
        rows = self.state.rows[kind]
        id = record.id
        old = rows.get(id)
        rows[id] = record
        self.state.index.replace(old, record)
        self._undo.append((kind, id, old))
        self.changes[kind, id] = record
        self.touched.append((old, record))

    def create(self, record: L, verb: Verb, reason: str = "") -> L:
        """Store a row that did not exist, and tell the story of its beginning."""
        kind = KIND_OF[type(record)]
        status = record.status
        if TABLES[kind].target(None, verb) != status:
            raise Defect(f"{kind} {record.id}: can not begin {status} by {verb}")
        self.put(record)
        self.story.append(Move(kind, record.id, "", verb, status, reason))
        return record

    def move(self, record: L, verb: Verb, *, reason: str = "", **fields: object) -> L:
        """
        Change a row's status by a verb, and other fields with it.

        Raises:
            Conflict: The table has no such move from the present status.
        """
        kind = KIND_OF[type(record)]
        source = record.status
        target = TABLES[kind].target(source, verb)
        if target is None:
            legal = ", ".join(TABLES[kind].verbs(source))
            raise Conflict(
                f"the {kind} is {source}, so it can not {verb}",
                where=f"{kind}_id",
                remedy=f"legal now: {legal or 'nothing, it has ended'}",
            )
        if kind in _REASONED:
            fields["reason"] = reason
        moved = evolve(record, status=target, **fields)
        self._store(kind, moved)  # the table has just allowed this edge
        self.story.append(Move(kind, record.id, source, verb, target, reason))
        return moved

    def follow(self, record: L, verbs: tuple[Verb, ...], **fields: object) -> L:
        """
        Several moves at once, when an observer saw only the last: each is told in the story, the row is stored once.

        Raises:
            Conflict: One of them is not legal where it would be made.
        """
        kind = KIND_OF[type(record)]
        table = TABLES[kind]
        status: str = record.status
        for verb in verbs:
            target = table.target(status, verb)
            if target is None:
                raise Conflict(f"the {kind} is {status}, so it can not {verb}", where=f"{kind}_id")
            self.story.append(Move(kind, record.id, status, verb, target, ""))
            status = target
        moved = evolve(record, status=status, **fields)
        self._store(kind, moved)
        return moved

    def change(self, record: T, **fields: object) -> T:
        """Change fields of a row whose status stays."""
        return self.put(evolve(record, **fields))

    def drop(self, record: Record) -> None:
        """Delete a row, in memory and in the store."""
        self.forget(record)
        kind = KIND_OF[type(record)]
        self.changes.pop((kind, record.id), None)
        self.drops[kind, record.id] = None

    def forget(self, record: Record) -> None:
        """Let go of a row in memory; the store keeps it."""
        kind = KIND_OF[type(record)]
        old = self.state.rows[kind].pop(record.id)
        self.state.index.replace(old, None)
        self._undo.append((kind, record.id, old))

    def emit(self, effect: Effect) -> None:
        """Have something done outside, after the commit."""
        self.effects.append(effect)

    def undo(self) -> None:
        """Put every row back as it was."""
        for kind, id, old in reversed(self._undo):
            rows = self.state.rows[kind]
            new = rows.get(id)
            if old is None:
                rows.pop(id, None)
            else:
                rows[id] = old
            self.state.index.replace(new, old)
        self._undo.clear()
