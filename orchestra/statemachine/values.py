"""
How value classes are made: frozen to the type checkers, not at run time.

A frozen constructor costs about five times as much as a plain one, and one small task makes some forty values on its way through the core.
Nothing may assign to a field of a value; the type checkers refuse it, and docs/decisions/0011 has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

__all__ = ["value"]

T = TypeVar("T")

if TYPE_CHECKING:
    from attrs import frozen as value
else:

    def value(cls: type[T]) -> type[T]:
        """A slotted attrs class that compares and hashes by its fields."""
        return attrs.define(cls, slots=True, unsafe_hash=True, on_setattr=attrs.setters.NO_OP)
