"""What takes a rule out: something else in the place of one of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from orchestra.statemachine.transaction import Transaction

Replacement = tuple[object, str, object]
"""What stands in for an attribute: the module or class, the attribute's name, the new thing."""

_STEP = import_module("orchestra.statemachine.step")
"""Not by an import statement: the package exports a function of this name."""

HANDLERS: Mapping[type, Callable[[Transaction, Any], Any]] = _STEP.HANDLERS
"""The handlers as they are."""


def always(value: object) -> Callable[..., Any]:
    """A function that answers this, whatever it is asked."""

    def answer(*_: object, **__: object) -> object:
        return value

    return answer


def handled(command: type, handler: Callable[[Transaction, Any], Any]) -> Replacement:
    """A command that is handled in another way."""
    return (_STEP, "HANDLERS", {**HANDLERS, command: handler})


def unrecalled() -> Replacement:
    """Keys that were used before are looked up in vain."""
    return (_STEP, "recall", always(None))
