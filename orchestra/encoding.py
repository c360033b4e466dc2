"""Values of users' programs as JSON and back, typed where the function says its type."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from orchestra.errors import Malformed

_ENCODER = msgspec.json.Encoder(order="deterministic")


def encode(value: object) -> bytes:
    """
    A value as JSON: what msgspec encodes (numbers, text, lists, dicts, dates, bytes, UUIDs, attrs, dataclasses, enums ...).

    Raises:
        Malformed: It has a part of another type.
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise Malformed(
            f"it can not travel as JSON: {problem}",
            where="arguments",
            remedy="pass numbers, text, lists, dicts, dates, attrs classes or dataclasses",
        ) from problem


def decode_all(encoded: Iterable[bytes], wanted: Any) -> list[object]:
    """As `decode` of each. One decoder reads them all, which is half of the cost of a short one."""
    try:
        read = msgspec.json.Decoder(Any if wanted is None else wanted).decode
        return [read(each) for each in encoded]
    except (TypeError, msgspec.ValidationError):
        return [decode(each, wanted) for each in encoded]


def decode(encoded: bytes, wanted: Any) -> object:
    """JSON as a value of the wanted type; as plain Python values when the type is None or not one that msgspec knows."""
    if wanted is None:
        return msgspec.json.decode(encoded)
    try:
        return msgspec.json.decode(encoded, type=wanted)
    except (TypeError, msgspec.ValidationError):
        return msgspec.json.decode(encoded)


def result_type(fn: Callable[..., object]) -> Any:
    """What a function says that it returns; None when it does not say."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(fn))
    except (NameError, TypeError, AttributeError):
        return None
    return hints.get("return")
