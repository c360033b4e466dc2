"""
Durations, sizes and amounts as people write them, and back to text. All arithmetic is in integers,
so nothing is rounded unseen.

========== =================================== ===========================
kind       written                             meaning
========== =================================== ===========================
duration   ``"1h30m"``, ``"500ms"``, ``90``    milliseconds; a plain number is seconds
size       ``"2GiB"``, ``"500MB"``, ``4096``   bytes; a plain number is bytes
amount     ``2``, ``0.5``, ``"0.5"``           thousandths
========== =================================== ===========================
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import cast

from orchestra.dialects.quoting import shown
from orchestra.errors import Malformed
from orchestra.statemachine.limits import (
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    NAME_CHARS_MAX,
    RESOURCES_MAX,
    SECOND_MS,
    TIME_MS_MAX,
)
from orchestra.statemachine.records import Amounts

DURATION_MS: Mapping[str, int] = {
    "d": DAY_MS,
    "h": HOUR_MS,
    "m": MINUTE_MS,
    "s": SECOND_MS,
    "ms": 1,
}
"""What each unit of time is worth, the longest first."""

SIZE_BYTES: Mapping[str, int] = {
    "PiB": 1024**5,
    "TiB": 1024**4,
    "GiB": 1024**3,
    "MiB": 1024**2,
    "KiB": 1024,
    "PB": 1000**5,
    "TB": 1000**4,
    "GB": 1000**3,
    "MB": 1000**2,
    "kB": 1000,
    "KB": 1000,
    "B": 1,
}
"""What each unit of size is worth."""

SIZED_RESOURCES = frozenset({"memory", "disk"})
"""Resources that are counted in bytes."""

SIZED_BYTES_MIN = 1024**2
"""No program runs in less than 1 MiB: a smaller plain number is one whose unit was forgotten."""

AMOUNT_MAX = (2**63 - 1) // 1000
"""Amounts in thousandths have to fit 63 bits in every store: 8 PiB of memory do."""

_TEXT_CHARS_MAX = 64
_NUMBER_MAX = 10**15
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,12})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ms|[smhd])")
_SIZE = re.compile(rf"({_NUMBER})\s?([A-Za-z]+)")
_PLAIN = re.compile(_NUMBER)
_RESOURCE = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]*")


def _scaled(number: str, factor: int) -> tuple[int, bool]:
    """``number`` times ``factor`` as a whole number rounded down, and whether nothing was lost."""
    whole, _, rest = number.partition(".")
    quotient, lost = divmod(int(whole + rest) * factor, 10 ** len(rest))
    return quotient, lost == 0


def _number_text(value: object) -> str | None:
    """A number as plain digits; None for what is no number or not zero or more."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(value) if 0 <= value < _NUMBER_MAX else None
    if isinstance(value, float) and math.isfinite(value) and 0 <= value < _NUMBER_MAX:
        return f"{value:.12f}"
    return None


def duration_ms(value: object, *, where: str = "") -> int:
    """
    A duration in milliseconds.

    Args:
        value: Text such as ``"10m"``, ``"1h30m"``, ``"1.5s"`` or ``"500ms"`` (units d, h, m, s, ms;
            longest first, each once), or a number of
            seconds.
        where: The name of the field, for the error.

    Raises:
        Malformed: It is neither, is finer than a millisecond, or is longer than
            `limits.TIME_MS_MAX`.
    """
    remedy = 'write it like "10m", "1h30m" or "500ms"'
    if isinstance(value, str):
        parts = _duration_parts(value)
    else:
        number = _number_text(value)
        parts = None if number is None else [(number, "s")]
    if not parts:
        raise Malformed(f"{shown(value)} is not a duration", where=where, remedy=remedy)
    total = 0
    for number, unit in parts:
        part_ms, exact = _scaled(number, DURATION_MS[unit])
        if not exact:
            raise Malformed(f"{shown(value)} is finer than a millisecond", where=where)
        total += part_ms
    if total > TIME_MS_MAX:
        raise Malformed(f"{shown(value)} is longer than a hundred years", where=where)
    return total


def _duration_parts(text: str) -> list[tuple[str, str]] | None:
    """The (number, unit) pairs of a duration; None when it is not written as one."""
    if len(text) > _TEXT_CHARS_MAX:
        return None
    parts: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        match = _DURATION_PART.match(text, position)
        if match is None:
            return None
        parts.append((match[1], match[2]))
        position = match.end()
    worth = [DURATION_MS[unit] for _, unit in parts]
    return parts if worth == sorted(set(worth), reverse=True) else None


def duration_text(ms: int) -> str:
    """A duration as `duration_ms` reads it: ``5_400_000`` is ``"1h30m"``, ``0`` is ``"0s"``. Raises ValueError below zero."""
    if ms < 0:
        raise ValueError("a duration can not be negative")
    parts: list[str] = []
    rest = ms
    for unit, worth in DURATION_MS.items():
        count, rest = divmod(rest, worth)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def size_bytes(value: object, *, where: str = "") -> int:
    """
    A size in bytes; a broken byte is rounded down.

    Args:
        value: Text such as ``"2GiB"`` (1024s) or ``"500MB"`` (1000s), or a whole number of bytes.
        where: The name of the field, for the error.

    Raises:
        Malformed: It is neither, or more than `AMOUNT_MAX`.
    """
    match = None
    if isinstance(value, str) and len(value) <= _TEXT_CHARS_MAX:
        match = _SIZE.fullmatch(value)
    if match is not None and match[2] in SIZE_BYTES:
        size, _ = _scaled(match[1], SIZE_BYTES[match[2]])
    elif match is None and isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        size = value
    else:
        near = {"k": "KiB", "m": "MiB", "g": "GiB", "t": "TiB", "p": "PiB"}
        unit = near.get(match[2][0].lower(), "MiB") if match else ""
        remedy = (
            f'did you mean "{match[1]}{unit}"?' if match else 'write it like "500MiB" or "2GiB"'
        )
        raise Malformed(f"{shown(value)} is not a size", where=where, remedy=remedy)
    if size > AMOUNT_MAX:
        raise Malformed(f"{shown(value)} is more than any machine has", where=where)
    return size


def bytes_text(n: int, *, rounded: bool = False) -> str:
    """
    A size as `size_bytes` reads it: ``2_147_483_648`` is ``"2GiB"``.

    Exact: a size that has more than three decimals in its unit goes to a smaller one. With
    ``rounded`` the unit is the one that people expect and the number has at most one decimal.
    Raises ValueError below zero.
    """
    if n < 0:
        raise ValueError("a size can not be negative")
    for unit, worth in SIZE_BYTES.items():
        if "i" not in unit or n < worth:
            continue
        if rounded:
            return f"{n / worth:.1f}".removesuffix(".0") + unit
        thousandths, lost = divmod(n * 1000, worth)
        if not lost:
            return _decimal(thousandths) + unit
    return f"{n}B"


def amount(name: str, value: object, *, where: str = "") -> int:
    """
    An amount of the resource ``name`` in thousandths: ``0.5`` cpu is 500; memory and disk are bytes
    times 1000.

    Raises:
        Malformed: Not a number of zero or more, finer than a thousandth, or too large.
    """
    if name in SIZED_RESOURCES:
        size = size_bytes(value, where=where)
        if not isinstance(value, str) and 0 < size < SIZED_BYTES_MIN:
            problem = f"{shown(value)} would be bytes: the unit is missing"
            raise Malformed(problem, where=where, remedy=f'did you mean "{value}GiB"?')
        return size * 1000
    text = value if isinstance(value, str) and _PLAIN.fullmatch(value) else _number_text(value)
    if text is None:
        remedy = "write a number such as 2 or 0.5"
        raise Malformed(f"{shown(value)} is not an amount", where=where, remedy=remedy)
    thousandths, exact = _scaled(text, 1000)
    if not exact:
        raise Malformed(f"{shown(value)} is finer than a thousandth", where=where)
    if thousandths > AMOUNT_MAX:
        raise Malformed(f"{shown(value)} is more than any machine has", where=where)
    return thousandths


def amount_text(name: str, thousandths: int) -> str:
    """An amount as `amount` reads it: 500 of ``cpu`` is ``"0.5"``; memory and disk come with a unit."""
    if name in SIZED_RESOURCES:
        return bytes_text(thousandths // 1000)
    return _decimal(thousandths)


def _decimal(thousandths: int) -> str:
    whole, rest = divmod(thousandths, 1000)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")


def amounts(needs: object, *, where: str = "needs") -> Amounts:
    """
    Counted resources such as ``{"cpu": 0.5, "memory": "2GiB", "gpu": 1}``: (name, thousandths),
    sorted by name; zeros are left out.

    Raises:
        Malformed: ``where`` names the resource, as in ``needs.cpu``.
    """
    if not isinstance(needs, Mapping):
        remedy = 'write it like { cpu = 1, memory = "500MiB" }'
        raise Malformed(f"{shown(needs)} is not a table of amounts", where=where, remedy=remedy)
    entries = cast("Mapping[object, object]", needs)
    if len(entries) > RESOURCES_MAX:
        raise Malformed(f"more than {RESOURCES_MAX} resources", where=where)
    found: dict[str, int] = {}
    for name, value in entries.items():
        if (
            not isinstance(name, str)
            or len(name) > NAME_CHARS_MAX
            or _RESOURCE.fullmatch(name) is None
        ):
            problem = f"{shown(name)} can not be the name of a resource"
            raise Malformed(problem, where=where, remedy="use letters, digits and _ . : / -")
        found[name] = amount(name, value, where=f"{where}.{name}")
    return tuple(sorted((name, count) for name, count in found.items() if count))
