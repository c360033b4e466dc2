"""Checks of what comes in, each a `Malformed` that names the field."""

from __future__ import annotations

import unicodedata

from orchestra.errors import Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.records import Amounts


def check_name(name: str, where: str) -> None:
    """A name is one line of 1 to ``limits.NAME_CHARS_MAX`` visible characters, in Unicode's composed form."""
    if name.isascii() and name.isprintable() and 0 < len(name.strip()) <= limits.NAME_CHARS_MAX:
        return
    if not name.strip():
        raise Malformed("it is empty", where=where, remedy="give it a name")
    if len(name) > limits.NAME_CHARS_MAX:
        raise Malformed(
            f"it has {len(name)} characters",
            where=where,
            remedy=f"use at most {limits.NAME_CHARS_MAX}",
        )
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name):
        raise Malformed("it has control characters", where=where, remedy="take them out")
    if not unicodedata.is_normalized("NFC", name):
        raise Malformed(
            "it is not in Unicode's composed form", where=where, remedy="normalise it to NFC"
        )


def check_text(text: str, where: str) -> None:
    """A reason is at most ``limits.REASON_CHARS_MAX`` characters."""
    if len(text) > limits.REASON_CHARS_MAX:
        raise Malformed(
            f"it has {len(text)} characters",
            where=where,
            remedy=f"use at most {limits.REASON_CHARS_MAX}",
        )


def check_range(value: int, low: int, high: int, where: str) -> None:
    """``low <= value <= high``, both included."""
    if not low <= value <= high:
        raise Malformed(f"{value} is out of bounds", where=where, remedy=f"use {low} to {high}")


def check_amounts(amounts: Amounts, where: str) -> None:
    """Counted resources: known once each, zero or more, sorted by name."""
    check_range(len(amounts), 0, limits.RESOURCES_MAX, where)
    names = [name for name, _ in amounts]
    for name, amount in amounts:
        check_name(name, f"{where}.{name}")
        check_range(amount, 0, 2**62, f"{where}.{name}")
    if sorted(set(names)) != names:
        raise Malformed("names must be sorted, each once", where=where, remedy="sort them")


def check_labels(labels: tuple[str, ...], where: str) -> None:
    """At most ``limits.LABELS_MAX`` names."""
    check_range(len(labels), 0, limits.LABELS_MAX, where)
    for number, label in enumerate(labels):
        check_name(label, f"{where}[{number}]")
