"""Many outcomes of the core as one commit."""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.ports import Batch, LogChunk
from orchestra.statemachine import Outcome
from orchestra.statemachine.records import Record
from orchestra.statemachine.story import Entry, Told


def fold(
    outcomes: Iterable[Outcome], logs: tuple[LogChunk, ...], number: int, first: int
) -> Batch | None:
    """
    Fold outcomes together; the newest row of each id wins. None when there is nothing durable in them.

    Args:
        outcomes: As the core gave them, in order.
        logs: Output that is stored with them.
        number: Of the batch.
        first: Number of the first entry of its story.
    """
    puts: dict[tuple[str, str], Record] = {}
    drops: dict[tuple[str, str], None] = {}
    entries: list[Entry] = []
    for outcome in outcomes:
        puts.update(outcome.changes)
        for dropped in outcome.drops:
            puts.pop(dropped, None)
            drops[dropped] = None
        entries.extend(outcome.entries)
    if not (puts or drops or entries or logs):
        return None
    return Batch(number, tuple(puts.values()), tuple(drops), Told(first, entries), logs)
