"""
The job runner's words: what its requests say, and how an end is told. Source: the API document of the Go scheduler and worker, and the
replies of the running program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from orchestra.dialects.strict_json import check_json
from orchestra.errors import Malformed
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.replies import AttemptView, TaskView

DONE: Mapping[JobStatus, bool] = MappingProxyType(
    {
        JobStatus.QUEUED: False,
        JobStatus.RUNNING: False,
        JobStatus.PAUSED: False,
        JobStatus.CANCELLING: False,
        JobStatus.COMPLETED: True,
        JobStatus.FAILED: True,
        JobStatus.CANCELLED: True,
    }
)
"""Every status of a job → ``done``."""

SIGNALS: Mapping[str, str] = MappingProxyType(
    {
        "SIGHUP": "hangup",
        "SIGINT": "interrupt",
        "SIGQUIT": "quit",
        "SIGILL": "illegal instruction",
        "SIGABRT": "aborted",
        "SIGFPE": "floating point exception",
        "SIGKILL": "killed",
        "SIGSEGV": "segmentation fault",
        "SIGPIPE": "broken pipe",
        "SIGTERM": "terminated",
    }
)
"""Go's words for signals on Linux; another is told by its name."""

KILLED = "signal: killed"

_WHITE = " \t\r\n"
_STRING_PART = re.compile(r'[^"\\\x00-\x1f]+|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4}')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_END = "unexpected end of JSON input"
_BEFORE_VALUE = "looking for beginning of value"


def read_fields(body: bytes, kind: str, names: tuple[str, ...]) -> dict[str, str]:
    """
    The texts of a request. Names in another case and unknown ones are accepted, null and what is missing is empty.

    Args:
        kind: The Go type that the original names in its refusals.

    Raises:
        Malformed: In the original's words where it has some.
    """
    try:
        check_json(body)
    except Malformed as error:
        text = body.decode(errors="replace")
        raise Malformed(told_by_go(text) or error.message, where="body") from None
    read: object = json.loads(body)
    found = dict.fromkeys(names, "")
    if read is None:
        return found
    if not isinstance(read, dict):
        told = f"json: cannot unmarshal {_go_kind(read)} into Go value of type main.{kind}"
        raise Malformed(told, where="body")
    for key, word in cast("dict[str, object]", read).items():
        name = key.lower()
        if name not in found or word is None:
            continue
        if not isinstance(word, str):
            field = f"Go struct field {kind}.{name} of type string"
            told = f"json: cannot unmarshal {_go_kind(word)} into {field}"
            raise Malformed(told, where=name)
        found[name] = word
    return found


def _go_kind(read: object) -> str:
    if isinstance(read, bool):
        return "bool"
    if isinstance(read, (int, float)):
        return "number"
    if isinstance(read, str):
        return "string"
    return "array" if isinstance(read, list) else "object"


def told_by_go(text: str) -> str:
    """What Go's encoding/json says of a text that is not JSON; empty when the text is JSON to it."""
    at, opened, want = 0, "", "value"
    for _ in range(2 * len(text) + 2):
        while at < len(text) and text[at] in _WHITE:
            at += 1
        if at == len(text):
            return "" if want == "after" and not opened else _END
        char = text[at]
        if want == "after":
            if not opened:
                return _invalid(char, "after top-level value")
            at += 1
            if char == opened[-1]:
                opened = opened[:-1]
            elif char == ",":
                want = "key" if opened[-1] == "}" else "value"
            else:
                kind = "object key:value pair" if opened[-1] == "}" else "array element"
                return _invalid(char, f"after {kind}")
        elif want == "colon":
            if char != ":":
                return _invalid(char, "after object key")
            at, want = at + 1, "value"
        elif char in "{[" and not want.endswith("key"):
            opened += "}" if char == "{" else "]"
            at, want = at + 1, "first key" if char == "{" else "first value"
        elif (want, char) in (("first key", "}"), ("first value", "]")):
            opened, at, want = opened[:-1], at + 1, "after"
        elif want.endswith("key") and char != '"':
            return _invalid(char, "looking for beginning of object key string")
        else:
            at, told = _scalar(text, at)
            if told:
                return told
            want = "colon" if want.endswith("key") else "after"
    return ""


def _invalid(char: str, where: str) -> str:
    shown = {"'": r"'\''", '"': "'\"'"}.get(char) or f"'{json.dumps(char)[1:-1]}'"
    return f"invalid character {shown} {where}"


def _scalar(text: str, at: int) -> tuple[int, str]:
    """Where a string, number or word ends, and what is wrong with it."""
    char = text[at]
    if char == '"':
        at += 1
        while found := _STRING_PART.match(text, at):
            at = found.end()
        if at < len(text) and text[at] == '"':
            return at + 1, ""
        if at >= len(text) or (text[at] == "\\" and at + 1 == len(text)):
            return at, _END
        if text[at] != "\\":
            return at, _invalid(text[at], "in string literal")
        if text[at + 1] != "u":
            return at, _invalid(text[at + 1], "in string escape code")
        bad = re.compile(r"[0-9a-fA-F]*").match(text, at + 2)
        end = bad.end() if bad else at + 2
        where = r"in \u hexadecimal character escape"
        return at, _invalid(text[end], where) if end < len(text) else _END
    for word in ("true", "false", "null"):
        if char == word[0]:
            for offset, letter in enumerate(word):
                if at + offset == len(text):
                    return at, _END
                if text[at + offset] != letter:
                    where = f"in literal {word} (expecting '{letter}')"
                    return at, _invalid(text[at + offset], where)
            return at + len(word), ""
    number = _NUMBER.match(text, at)
    if number is not None:
        return _number_end(text, number.end())
    if char != "-":
        return at, _invalid(char, _BEFORE_VALUE)
    return at, _invalid(text[at + 1], "in numeric literal") if at + 1 < len(text) else _END


def _number_end(text: str, at: int) -> tuple[int, str]:
    """A point or an exponent after a whole number needs digits."""
    if at < len(text) and text[at] in ".eE":
        where = "after decimal point in" if text[at] == "." else "in exponent of"
        at += 1 + (text[at] != "." and text[at + 1 : at + 2] in ("+", "-"))
        told = _invalid(text[at], f"{where} numeric literal") if at < len(text) else _END
        return at, told
    return at, ""


def error_text(status: JobStatus, task: TaskView | None) -> str:
    """How a job's program ended, in the original's words; empty while it runs and after exit code 0."""
    if not DONE[status] or status is JobStatus.COMPLETED:
        return ""
    if status is JobStatus.CANCELLED:
        # Whichever rung of the ladder ended it: the original knows no other.
        return KILLED
    attempt = task.attempts[-1] if task is not None and task.attempts else None
    if attempt is not None and (told := _told_of(attempt)):
        return told
    return (attempt.message if attempt is not None else "") or (task.reason if task else "failed")


def _told_of(attempt: AttemptView) -> str:
    if attempt.signal:
        return f"signal: {SIGNALS.get(attempt.signal, attempt.signal)}"
    return f"exit status {attempt.exit_code}" if attempt.exit_code else ""
