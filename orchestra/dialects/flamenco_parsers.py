"""
Task parsers: from the lines that a program writes to how far it is.

The expressions are fixed here by whoever runs the manager, none comes from a request, and each is linear in the length of a line; lines
are cut. So a hostile log costs time in proportion to its length, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import attrs
import msgspec

from orchestra.statemachine.values import value

LINE_CHARS_MAX = 2_048
"""A longer line is no line of progress."""

TEXT_CHARS_MAX = 128 * 1024
"""Of a longer text only the end is read: what a program said last is how far it is."""

ACTIVITY_CHARS_MAX = 16 * 1024
"""What a worker's own parser found, as JSON, is at most this long."""


@value
class Activity:
    """
    What was understood of a log.

    ``current_frame`` is the last frame seen, ``saved`` counts pictures written, ``thumbnail`` is the path of the last of them, and
    ``part`` is how far the present one is (0 to 1).
    """

    process: str = ""
    remaining: str = ""
    thumbnail: str = ""
    current_frame: int | None = None
    path_not_found: str = ""
    saved: int = 0
    part: float = 0.0


class TaskParser:
    """Reads nothing: the parser of programs that say nothing of themselves."""

    name = "none"

    def line(self, activity: Activity, line: str) -> Activity:
        """What is known after one more line, which has no line break."""
        del line
        return activity

    def feed(self, activity: Activity, text: str) -> Activity:
        """What is known after more text, of which the last `TEXT_CHARS_MAX` count."""
        for line in text[-TEXT_CHARS_MAX:].splitlines():
            activity = self.line(activity, line[:LINE_CHARS_MAX])
        return activity


class BlenderParser(TaskParser):
    """Blender's own lines, those of 2015 and of today."""

    name = "blender_render"
    _frame = re.compile(r"Fra:([0-9]{1,9})")
    _remaining = re.compile(r"Remaining:([0-9:.]{1,20})")
    _sample = re.compile(r"(?:Sample|Path Tracing Sample|Rendered) ([0-9]{1,9})/([0-9]{1,9})")
    _saved = re.compile(r"Saved: ?'?([^'\r\n]{1,1000})'?")
    _missing = re.compile(r"Path '([^']{1,1000})' not found")

    def line(self, activity: Activity, line: str) -> Activity:
        """As `TaskParser.line`."""
        changes: dict[str, object] = {}
        if line.startswith("Saved:") and (saved := self._saved.match(line)) is not None:
            # Before 2.8 the time stands behind the path, without quotes.
            path = saved[1].partition(" Time: ")[0].strip()
            changes = {"thumbnail": path, "saved": activity.saved + 1, "part": 0.0}
        elif (missing := self._missing.search(line)) is not None:
            changes = {"path_not_found": missing[1]}
        elif (frame := self._frame.search(line)) is not None:
            changes = {"current_frame": int(frame[1]), "process": line.rpartition("| ")[2][:200]}
            if (remaining := self._remaining.search(line)) is not None:
                changes["remaining"] = remaining[1]
            if (sample := self._sample.search(line)) is not None and int(sample[2]):
                changes["part"] = min(int(sample[1]) / int(sample[2]), 1.0)
        return attrs.evolve(activity, **changes) if changes else activity


PARSERS: Mapping[str, TaskParser] = MappingProxyType(
    {parser.name: parser for parser in (TaskParser(), BlenderParser())}
)
"""Parsers by the word that a task names them with."""


class _Told(msgspec.Struct, frozen=True):
    """
    Activity as a worker's own parser tells it; what it does not know is null or absent. Programs differ in what they say: the remaining
    time is a text or whole seconds, a missing path is named or just said to be missing.
    """

    process: str | None = None
    remaining: str | int | float | None = None
    thumbnail: str | None = None
    current_frame: int | str | None = None
    path_not_found: str | bool | None = None


_told = msgspec.json.Decoder(_Told)


def read_activity(text: str, before: Activity) -> Activity:
    """What a worker tells of itself in the field ``activity``; what can not be read changes nothing."""
    if not text or len(text) > ACTIVITY_CHARS_MAX:
        return before
    try:
        told = _told.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return before
    frame = str(told.current_frame) if told.current_frame is not None else ""
    known = frame.isascii() and frame.isdecimal() and len(frame) <= len("999999999")
    remaining, missing = told.remaining, told.path_not_found
    return attrs.evolve(
        before,
        process=(told.process or before.process)[:200],
        remaining=before.remaining if remaining in (None, "") else str(remaining)[:20],
        thumbnail=(told.thumbnail or before.thumbnail)[:1_000],
        path_not_found=(missing if isinstance(missing, str) else "a path" if missing else "")[
            :1_000
        ]
        or before.path_not_found,
        current_frame=int(frame) if known else before.current_frame,
    )


def activity_text(activity: Activity) -> str:
    """The field ``activity`` as Flamenco's programs read it."""
    return msgspec.json.encode(
        {
            "process": activity.process or None,
            "remaining": activity.remaining or None,
            "thumbnail": activity.thumbnail or None,
            "current_frame": activity.current_frame,
            "path_not_found": activity.path_not_found or None,
        }
    ).decode()


def fraction(activity: Activity, first: int, last: int) -> float:
    """How much of the frames ``first`` to ``last`` is done, 0 to 1."""
    total = max(last - first + 1, 1)
    done = activity.saved
    if activity.current_frame is not None:
        done = max(done, min(activity.current_frame, last + 1) - first)
    return min(max((done + activity.part) / total, 0.0), 1.0)
