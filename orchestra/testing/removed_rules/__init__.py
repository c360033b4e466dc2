"""
Safety rules of the core, of the far end of a worker and of what lies around them, each of which can be taken out: what looks for defects
must notice it.

A rule that nobody would miss is not protected by any test. `removed` takes one out for as long as its context lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from unittest import mock

from orchestra.testing.removed_rules import around, ends, far_end, leases, turns
from orchestra.testing.removed_rules.replacing import Replacement, handled

__all__ = ["AROUND", "RULES", "Replacement", "handled", "removed"]

RULES: Mapping[str, Callable[[], Sequence[Replacement]]] = MappingProxyType(
    {
        rule.__name__: rule
        for rule in (*leases.RULES, *turns.RULES, *ends.RULES, *far_end.RULES, *around.RULES)
    }
)
"""Each defect by its name; its docstring says what goes wrong."""

AROUND = frozenset(rule.__name__ for rule in around.RULES)
"""Those that simulations find, and not schedules of the core."""


@contextmanager
def removed(name: str) -> Generator[None]:
    """
    Take a rule out of this process, until the context ends.

    Raises:
        KeyError: There is no such rule.
    """
    with ExitStack() as stack:
        for target, attribute, replacement in RULES[name]():
            stack.enter_context(mock.patch.object(target, attribute, replacement))
        yield
