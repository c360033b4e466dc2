"""What the words of the command line mean: durations, amounts, labels, variables. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from orchestra.dialects import units
from orchestra.dialects.quoting import shown
from orchestra.errors import Malformed
from orchestra.statemachine.records import Amounts

_PLAIN = re.compile(r"[0-9]{1,15}(\.[0-9]{1,12})?")


def duration_ms(text: str, where: str) -> int:
    """A duration such as ``10m``, ``1h30m`` or ``500ms``; plain numbers are seconds. Raises `Malformed`."""
    return units.duration_ms(f"{text}s" if _PLAIN.fullmatch(text) else text, where=where)


def seconds(text: str | None, where: str) -> float | None:
    """As `duration_ms`, in seconds; None for None."""
    return None if text is None else duration_ms(text, where) / 1_000


def pairs(words: Iterable[str], where: str, example: str) -> dict[str, str]:
    """Words of the form ``NAME=VALUE``, several in one word separated by commas only where ``example`` is given as such."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            told = f"{shown(word)} is not NAME=VALUE"
            raise Malformed(told, where=where, remedy=f"write it like {example}")
        if name in found:
            raise Malformed(f"{shown(name)} is given twice", where=where)
        found[name] = value
    return found


def amounts(words: Iterable[str], where: str) -> Amounts:
    """``gpu=1 memory=2GiB`` (also ``gpu=1,memory=2GiB``) as counted resources. Raises `Malformed`."""
    single = [part for word in words for part in word.split(",")]
    return units.amounts(pairs(single, where, "gpu=1 or memory=2GiB"), where=where)


def row_of(text: str, where: str) -> int | None:
    """
    The line (from 1) of a TOML text on which the field ``where`` stands, or the nearest thing around it that is there.

    Only a hint for people: it reads line by line, and knows headers, keys and nothing else.
    """
    wanted = _path(re.sub(r"\[\d+\]", "", where))
    best: tuple[int, int] | None = None
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = _path(stripped.strip("[]").partition("]")[0])
            path = table
        elif "=" in stripped and not stripped.startswith("#"):
            path = (*table, *_path(stripped.partition("=")[0]))
        else:
            continue
        if path and path == wanted[: len(path)] and (best is None or len(path) > best[0]):
            best = len(path), number
    return None if best is None else best[1]


_PATH_PART = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*(?:\.|$)""")


def _path(text: str) -> tuple[str, ...]:
    parts: list[str] = []
    position = 0
    while position < len(text):
        match = _PATH_PART.match(text, position)
        if match is None:
            return ()
        parts.append(next(group for group in match.groups() if group is not None))
        position = match.end()
    return tuple(parts)
