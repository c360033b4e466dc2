"""Fields of a TOML file, read one by one so that all mistakes of a file are told at once."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, cast

from orchestra.dialects.quoting import nearest, shown
from orchestra.errors import Malformed

MISTAKES_MAX = 20
"""Nobody mends more than a screenful at once; the rest is counted."""

CHOICES_MAX = 1_000
"""So many names are compared with a wrong one."""

Table = dict[str, Any]
T = TypeVar("T")

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_PATH_CHARS_MAX = 300


def inside(where: str, key: str) -> str:
    """The path of ``key`` within ``where``, written as TOML writes it: quoted when it has to be."""
    part = key if _BARE.fullmatch(key) else json.dumps(key[:80], ensure_ascii=False)
    return f"{where}.{part}"[:_PATH_CHARS_MAX] if where else part


class Mistakes:
    """All that is wrong with a file, in the order found."""

    def __init__(self) -> None:
        self._found: list[Malformed] = []
        self._count = 0

    def add(self, where: str, problem: str, remedy: str = "") -> None:
        """Note a mistake."""
        self._count += 1
        if len(self._found) < MISTAKES_MAX:
            self._found.append(Malformed(problem, where=where, remedy=remedy))

    def near(self, where: str, problem: str, word: str, choices: Iterable[str]) -> None:
        """Note a word that is unknown, with the nearest one that is known."""
        if len(self._found) >= MISTAKES_MAX:
            self._count += 1
            return
        guess = nearest(word, itertools.islice(choices, CHOICES_MAX))
        self.add(where, problem, f"did you mean {shown(guess)}?" if guess else "")

    def unknown(self, fields: Table, known: tuple[str, ...], where: str) -> list[str]:
        """Note each key that nobody reads; returns them."""
        strangers = [key for key in fields if key not in known]
        for key in strangers:
            self.near(inside(where, key), "there is no such key", key, known)
        return strangers

    def remark(self, where: str, remedy: str) -> None:
        """Give a noted mistake another remedy."""
        for mistake in self._found:
            if mistake.where == where:
                mistake.remedy = remedy

    def clean_at(self, where: str) -> bool:
        """Whether nothing was noted about exactly this field."""
        return all(mistake.where != where for mistake in self._found)

    def tried(self, read: Callable[[object, str], T], value: object, where: str, default: T) -> T:
        """``value`` as ``read`` reads it; ``default``, and a note, when it is wrong."""
        try:
            return read(value, where)
        except Malformed as mistake:
            self.add(mistake.where, mistake.message, mistake.remedy)
            return default

    def taken(
        self, fields: Table, key: str, where: str, read: Callable[[object, str], T], default: T
    ) -> T:
        """The field ``key`` as ``read`` reads it; ``default`` when it is absent or wrong."""
        if key not in fields:
            return default
        return self.tried(read, fields[key], inside(where, key), default)

    def done(self) -> None:
        """Raises `Malformed` with everything that was noted; returns when there was nothing."""
        if not self._found:
            return
        first = self._found[0]
        if self._count == 1:
            raise first
        lines = [first.message + (f" - {first.remedy}" if first.remedy else "")]
        lines += [str(mistake) for mistake in self._found[1:]]
        if self._count > len(self._found):
            lines.append(f"and {self._count - len(self._found)} more")
        raise Malformed("\n".join(lines), where=first.where)


def table(value: object, where: str) -> Table:
    """A table."""
    if not isinstance(value, dict):
        raise Malformed(f"{shown(value)} is not a table", where=where)
    return cast("Table", value)


def text(value: object, where: str) -> str:
    """A text."""
    if not isinstance(value, str):
        remedy = f'write "{value}"' if isinstance(value, int | float) else ""
        raise Malformed(f"{shown(value)} is not a text", where=where, remedy=remedy)
    return value


def texts(
    count_max: int, chars_max: int = 0, *, empty: bool = False
) -> Callable[[object, str], tuple[str, ...]]:
    """A reader of lists of at most ``count_max`` texts, each up to ``chars_max`` characters (0: any)."""

    def read(value: object, where: str) -> tuple[str, ...]:
        if not isinstance(value, list):
            remedy = f"write [{shown(value)}]" if isinstance(value, str) else ""
            raise Malformed(f"{shown(value)} is not a list", where=where, remedy=remedy)
        entries = cast("list[object]", value)
        if len(entries) > count_max:
            raise Malformed(f"has more than {count_max:,} entries", where=where)
        words = tuple(text(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
        for i, word in enumerate(words):
            if (not word and not empty) or (chars_max and len(word) > chars_max):
                problem = f"has more than {chars_max} characters" if word else "is empty"
                raise Malformed(problem, where=f"{where}[{i}]")
        return words

    return read


def integer(least: int, most: int) -> Callable[[object, str], int]:
    """A reader of whole numbers from ``least`` to ``most``."""

    def read(value: object, where: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise Malformed(f"{shown(value)} is not a whole number", where=where)
        if not least <= value <= most:
            problem = f"{shown(value)} is not between {least:,} and {most:,}"
            raise Malformed(problem, where=where)
        return value

    return read


def json_bytes(value: object, where: str) -> bytes:
    """
    A value as JSON. Dates and times become text in ISO form.

    Raises:
        Malformed: A number that JSON or a 64-bit program can not hold, or too deep a nesting.
    """
    try:
        _check_numbers(value, where)
        form = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_iso)
    except RecursionError as problem:
        raise Malformed("is nested too deeply", where=where) from problem
    return form.encode()


def _iso(value: object) -> str:
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a value of TOML")


def _check_numbers(value: object, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Malformed(f"{shown(value)} is not a number that can be passed on", where=where)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise Malformed(f"{shown(value)} does not fit 64 bits", where=where, remedy="write a text")
    if isinstance(value, list):
        for position, entry in enumerate(cast("list[object]", value)):
            _check_numbers(entry, f"{where}[{position}]")
    if isinstance(value, Mapping):
        for key, entry in cast("Mapping[str, object]", value).items():
            _check_numbers(entry, inside(where, key))
