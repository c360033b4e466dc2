"""
What is shipped for tests: a simulator for workflows, conformance suites for stores, transports and engines, and what proves the core.

A module is loaded when it is asked for: a suite for engines needs no server, and a core in a test needs nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.testing import faults
    from orchestra.testing.simulation.decorator import simulate

__all__ = ["faults", "simulate"]


def __getattr__(name: str) -> Any:
    if name == "simulate":
        from orchestra.testing.simulation.decorator import simulate

        return simulate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
