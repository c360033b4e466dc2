"""What every store asks of a query and of a batch, so that all of them refuse the same."""

from __future__ import annotations

from orchestra.errors import Malformed, ensure
from orchestra.ports import Batch, Log, Moved, Rows, Story
from orchestra.statemachine import ids, limits
from orchestra.statemachine.records import KIND_OF, KINDS
from orchestra.statemachine.story import Told

JOB_PARTS = frozenset({"job", "stage", "task", "attempt"})
"""The kinds whose ids begin with the id of their job."""


def check_rows(query: Rows) -> None:
    """Raise `Malformed` for a page that can not be: an unknown kind, or too many rows."""
    if query.kind not in KINDS:
        raise Malformed(f"there is no kind {query.kind!r}", where="kind")
    _check_limit(query.limit, limits.PAGE_MAX)


def check_story(query: Story) -> None:
    """Raise `Malformed` for too many entries in one page."""
    _check_limit(query.limit, limits.PAGE_MAX)


def check_log(query: Log) -> None:
    """Raise `Malformed` for more bytes than a stream may have, or a negative offset."""
    _check_limit(query.limit, limits.LOG_BYTES_MAX)
    if query.offset < 0:
        raise Malformed("is below 0", where="offset")


def _check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise Malformed(f"{limit} is not between 1 and {most}", where="limit")


def check_batch(batch: Batch) -> None:
    """Raise `Defect` for a batch that contradicts itself. Nothing of it may be stored then."""
    for kind, id in batch.drops:
        ensure(kind in KINDS, f"batch {batch.number} drops {id!r} of unknown kind {kind!r}")
    if batch.drops:
        puts = {(KIND_OF[type(record)], record.id) for record in batch.puts}
        both = puts.intersection(batch.drops)
        ensure(not both, f"batch {batch.number} both puts and drops {sorted(both)[:3]}")
    if batch.story and not isinstance(batch.story, Told):  # which counts by itself
        first = batch.story[0].number
        for place, entry in enumerate(batch.story):
            ensure(entry.number == first + place, f"batch {batch.number} has a gap in its story")
    for piece in batch.logs:
        ensure(piece.offset >= 0, f"batch {batch.number} has output at {piece.offset}")


def check_story_follows(batch: Batch, story_number: int) -> None:
    """Raise `Defect` unless the batch's story goes on where the stored one ends."""
    if batch.story and batch.story[0].number != story_number + 1:
        ensure(False, f"story entry {batch.story[0].number} does not follow {story_number}")


def belongs(entry: Moved, job_id: str) -> bool:
    """Whether a story entry is about a job or a part of it."""
    return entry.kind in JOB_PARTS and ids.job_of(entry.id) == job_id
