"""Values of every class that travels, made from the classes' own fields, so that a new class or field is covered by itself."""

from __future__ import annotations

import types
from collections.abc import Mapping
from enum import Enum
from itertools import count
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from orchestra.dialects.native_wire import OPAQUE, OVER
from orchestra.statemachine.records import Amounts, Span

_JSON = b'{"frames": [1, 2.5, null], "name": "\xc3\xa4\\n\\"", "deep": {"a": []}}'
_ANY_BYTES = bytes(range(256)) + b"\r\n\xff\x00"
_SPAN = Span(1, 11, 2)
_AMOUNTS: Amounts = (("cpu", 500), ("gpu", 2_000), ("memory", 2_147_483_648_000))


class Samples:
    """
    Draws values, each different.

    Args:
        full: Every field has a value of its own; otherwise fields with a default keep it, and what may be None is None.
        fan_out: What ``over`` is, where there is one.
    """

    def __init__(self, *, full: bool, fan_out: Span | tuple[bytes, ...] | None = _SPAN) -> None:
        self._full = full
        self._fan_out = fan_out
        self._numbers = count(1)

    def of(self, cls: type[Any]) -> Any:
        """A value of an attrs class."""
        declared = get_type_hints(cls)
        fields = {
            field.name: self._value(cls, declared[field.name], field.name)
            for field in attrs.fields(cls)
            if self._full or field.default is attrs.NOTHING
        }
        return cls(**fields)

    def _value(self, cls: type[Any], declared: Any, name: str) -> Any:
        if declared == Amounts:
            return _AMOUNTS
        if declared == OVER:
            return self._fan_out
        origin, args = get_origin(declared), get_args(declared)
        if origin in (Union, types.UnionType):
            if not self._full:
                return None
            return self._value(cls, next(arg for arg in args if arg is not type(None)), name)
        if origin is tuple:
            return tuple(self._value(cls, args[0], name) for _ in range(2 if self._full else 0))
        if origin is not None and issubclass(origin, Mapping):
            return {f"{name} {n}": self._value(cls, args[1], name) for n in (1, 2)}
        return self._plain(cls, declared, name)

    def _plain(self, cls: type[Any], declared: Any, name: str) -> Any:
        number = next(self._numbers)
        if attrs.has(declared):
            return self.of(declared)
        if issubclass(declared, Enum):
            return list(declared)[-1]
        if declared is bytes:
            return _ANY_BYTES if cls in OPAQUE else _JSON
        if declared is str:
            return f"{name}-{number}-\u00e4 \U0001f3bc+%&?#"
        if declared is bool:
            return True
        if declared is float:
            return number / 8
        if declared is int:
            return number
        raise TypeError(f"no sample for {declared}")


def variants(cls: type[Any]) -> list[Any]:
    """Values of a class that together use each of its fields, and leave each out."""
    found = [Samples(full=True).of(cls), Samples(full=False).of(cls)]
    if _fans_out(cls):
        items = (b"1", b'{"tile": [0, 1]}', b"null", b'"text"')
        found += [Samples(full=True, fan_out=over).of(cls) for over in (items, (), None)]
    return found


def _fans_out(cls: type[Any]) -> bool:
    hints = get_type_hints(cls)
    inner = [get_args(hint)[0] for hint in hints.values() if get_origin(hint) is tuple]
    nested = [arg for arg in (*hints.values(), *inner) if isinstance(arg, type) and attrs.has(arg)]
    return OVER in hints.values() or any(_fans_out(arg) for arg in nested)
