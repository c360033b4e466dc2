"""A posted task as the core keeps it: the template of its stages."""

from __future__ import annotations

from typing import Any

import msgspec


class Posted(msgspec.Struct, frozen=True):
    """
    What was posted.

    Args:
        task_id: The number that whoever posted it gave it.
        type: The compiler's word.
        parser: The parser's word.
        settings: As they came, checked by the compiler.
        jobfile: The shelf's name of the files that came with it; empty without.
        flamenco: Tells that the template is one of this dialect, and in which form.
    """

    task_id: int
    type: str
    parser: str
    settings: dict[str, Any]
    jobfile: str = ""
    flamenco: int = 1


_posted = msgspec.json.Decoder(Posted)


def read_posted(template: bytes) -> Posted | None:
    """A stage's template; None when it is one of another dialect."""
    try:
        return _posted.decode(template)
    except (msgspec.DecodeError, RecursionError):
        return None


def write_posted(posted: Posted) -> bytes:
    """As a stage's template."""
    return msgspec.json.encode(posted)
