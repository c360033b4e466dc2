"""What a worker of Flamenco says of its task: its log, kept once however often it is sent, and how far that is."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from typing import Any

from orchestra.dialects.asks import AppendLog, Ask
from orchestra.dialects.flamenco_desk import TAIL_BYTES, Run, new_output
from orchestra.dialects.flamenco_parsers import read_activity
from orchestra.dialects.flamenco_tasks import parser_of
from orchestra.errors import Conflict
from orchestra.ports import Log, LogChunk
from orchestra.statemachine import limits

STREAM = "stdout"
FULL = b"\n(the log goes on; no more of it is kept)\n"


def keep_log(run: Run, log: str, activity: str) -> Generator[Ask, Any, bool]:
    """
    Keep what is new in a log, and what it tells; whether the attempt is still the worker's. Beyond what the core keeps of one attempt
    nothing more is kept, which is no reason to stop a render.

    Args:
        log: All of it so far, or its end.
        activity: What the worker's own parser found, as JSON; empty for nothing, then ours reads the log.
    """
    if log and run.log_bytes is None:
        yield from _recall(run)
    fresh = new_output(run, log) if log else b""
    before = run.activity
    run.activity = read_activity(activity, before)
    if run.activity is before and fresh:
        run.activity = parser_of(run).feed(before, fresh.decode(errors="replace"))
    if not fresh:
        return True
    attempt_id = run.order.attempt_id
    at, size = run.log_bytes or 0, limits.LOG_CHUNK_BYTES_MAX
    room = limits.LOG_BYTES_MAX - len(FULL) - at
    if 0 <= room < len(fresh):
        fresh = fresh[:room] + FULL
    elif room < 0:
        return True
    chunks = tuple(
        LogChunk(attempt_id, STREAM, at + offset, fresh[offset : offset + size])
        for offset in range(0, len(fresh), size)
    )
    run.log_bytes = at + len(fresh)
    try:
        yield AppendLog(run.card.id, run.card.incarnation, chunks)
    except Conflict:
        return False
    return True


def _recall(run: Run) -> Generator[Ask, Any, None]:
    """What is kept of a log from before this manager started, and what it told: its worker may send all of that again."""
    # Read at once: many workers are looked at in one dialogue, which has a bound.
    whole = Log(run.order.attempt_id, STREAM, limit=limits.LOG_BYTES_MAX)
    kept = (yield whole).data
    run.activity = parser_of(run).feed(run.activity, kept.decode(errors="replace"))
    run.log_mark = (len(kept), hashlib.sha256(kept).digest())
    run.log_bytes, run.log_tail = len(kept), kept[-TAIL_BYTES:]
