"""The only door through which handlers and rules read and change the state, with an undo list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from random import Random
from typing import TypeVar, cast

from orchestra.errors import Conflict, Defect, NotFound
from orchestra.statemachine import ids
from orchestra.statemachine.effects import Effect
from orchestra.statemachine.lifecycles import TABLES, Verb
from orchestra.statemachine.records import KIND_OF, Living, Record, Settings, evolve
from orchestra.statemachine.state import State
from orchestra.statemachine.story import Entry
from orchestra.statemachine.table import Walk

T = TypeVar("T", bound=Record)
L = TypeVar("L", bound=Living)

_status_of: Callable[[Record], str] = attrgetter("status")
"""For records of which only the kind is known, and that the kind has a table."""


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
        self.story: list[Entry] = []
        self.touched: list[tuple[Record | None, Record | None]] = []
        """Every change of a row in order, as (old, new): what the rules follow, and what is undone."""
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
        old = self.state.rows[kind].get(record.id)
        table = TABLES.get(kind)
        if table is not None:
            before = None if old is None else _status_of(old)
            after = _status_of(record)
            if before != after and not table.has_edge(before, after):
                raise Defect(
                    f"{kind} {record.id}: no edge {before} -> {after}", story=tuple(self.story)
                )
        self._store(kind, old, record)
        return record

    def _store(self, kind: str, old: Record | None, record: Record) -> None:
        id = record.id
        self.state.rows[kind][id] = record
        self.state.index.replace(old, record)
        self.changes[kind, id] = record
        self.touched.append((old, record))

    def path(self, kind: str, source: str, verbs: tuple[Verb, ...]) -> Walk:
        """
        The moves that these verbs make from ``source`` (empty: from before the beginning), for `keep`.

        Raises:
            Conflict: One of them is not legal where it would be made.
        """
        moves = TABLES[kind].walk(source, verbs)
        if moves is None:
            told = " and ".join(verbs)
            raise Conflict(f"the {kind} is {source}, so it can not {told}", where=f"{kind}_id")
        return moves

    def keep(
        self, kind: str, rows: Sequence[tuple[L | None, L]], path: Walk, reason: str = ""
    ) -> None:
        """
        Store rows, given as (old, new), that all make the moves of ``path``, and tell them. The caller has the index follow them.

        Raises:
            Defect: A row does not go from the path's source to its target.
        """
        kept, changes, story, now_ms = self.state.rows[kind], self.changes, self.story, self.now_ms
        begin, end = path[0][0], path[-1][2]
        for old, new in rows:
            id = new.id
            if ("" if old is None else old.status) != begin or new.status != end:
                raise Defect(f"{kind} {id}: it does not make the moves {path}", story=tuple(story))
            kept[id] = new
            changes[kind, id] = new
            for source, verb, target in path:
                story.append((now_ms, kind, id, source, verb, target, reason))
        self.touched.extend(rows)

    def create(self, record: L, verb: Verb, reason: str = "") -> L:
        """Store a row that did not exist, and tell the story of its beginning."""
        kind = KIND_OF[type(record)]
        id = record.id
        status = record.status
        if TABLES[kind].target(None, verb) != status or id in self.state.rows[kind]:
            raise Defect(f"{kind} {id}: can not begin {status} by {verb}", story=tuple(self.story))
        self._store(kind, None, record)
        self.story.append((self.now_ms, kind, id, "", verb, status, reason))
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
        id = record.id
        self._store(kind, self.state.rows[kind].get(id), moved)  # the table has just allowed this
        self.story.append((self.now_ms, kind, id, source, verb, target, reason))
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
        self.touched.append((old, None))

    def emit(self, effect: Effect) -> None:
        """Have something done outside, after the commit."""
        self.effects.append(effect)

    def undo(self) -> None:
        """Put every row back as it was."""
        for old, new in reversed(self.touched):
            record = cast("Record", old or new)
            rows = self.state.rows[KIND_OF[type(record)]]
            if old is None:
                rows.pop(record.id, None)
            else:
                rows[record.id] = old
            self.state.index.replace(new, old)
        self.touched.clear()
