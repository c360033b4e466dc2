"""
How value classes are made: frozen to the type checkers, not at run time.

A frozen constructor costs about five times as much as a plain one, and one small task makes some forty values on its way through the core.
Nothing may assign to a field of a value; the type checkers refuse it, and docs/decisions/0011 has the figures.

Values are compared, hashed and told by functions that all of them share: compiling some for each class was a sixth of the time of a start.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

__all__ = ["value"]

T = TypeVar("T")

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type[T]) -> type[T]:
        """A slotted attrs class that compares and hashes by its fields."""
        made = attrs.define(cls, slots=True, eq=False, repr=False, on_setattr=attrs.setters.NO_OP)
        compared = tuple(field.name for field in attrs.fields(made) if field.eq)
        told = tuple(field.name for field in attrs.fields(made) if field.repr)
        for name, method in _methods(compared, told).items():
            if name not in vars(cls):
                setattr(made, name, method)
        return made


def _methods(compared: tuple[str, ...], told: tuple[str, ...]) -> dict[str, Callable[..., Any]]:
    """How a value is compared and hashed by some of its fields, and tells some of them: not a secret."""
    fields: Callable[[object], object] = attrgetter(*(compared or ("__class__",)))

    def equal(self: object, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return fields(self) == fields(other)

    def hashed(self: object) -> int:
        return hash((self.__class__, fields(self)))

    def tell(self: object) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in told)
        return f"{self.__class__.__qualname__.rsplit('>.', 1)[-1]}({shown})"

    return {"__eq__": equal, "__hash__": hashed, "__repr__": tell}
