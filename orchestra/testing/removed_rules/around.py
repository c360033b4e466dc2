"""What holds around the core: simulations of the whole system notice it, the core's schedules do not have these parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestra.runtime.orchestrator import Orchestrator
from orchestra.testing.removed_rules.replacing import Replacement, always
from orchestra.worker.output import OutputSpool


def output_told_once() -> Sequence[Replacement]:
    """A piece of output that was lost on its way is never sent again."""
    return ((OutputSpool, "unstored", always(None)),)


def memory_ahead_of_the_store() -> Sequence[Replacement]:
    """After a commit that failed the server goes on with what it had decided."""

    def load_again(self: Any, asks: Any, failure: Any) -> None:
        self._tell_all(asks, failure)

    return ((Orchestrator, "_load_again", load_again),)


RULES = (output_told_once, memory_ahead_of_the_store)
