"""
Whether a history is linearizable: whether each operation can have happened at one moment between its question and its answer.

The search is that of Wing and Gong, "Testing and verifying concurrent objects" (1993), with the memory of Lowe, "Testing for
linearizability" (2017): an order that leads to the same operations done and the same states is not followed twice. A model may be
nondeterministic (things happen that no client asked for), so it is asked with all states that are possible at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import attrs

from orchestra.testing.linearizability.history import History, Operation

S = TypeVar("S")

Model = Callable[[frozenset[S], Operation], frozenset[S]]
"""The states in which an object can be after an operation with its outcome; none when it can not have had that outcome."""

ORDERS_MAX = 2_000_000
"""A search that is longer than this is given up, and says so."""


class Undecided(RuntimeError):
    """The history has too many orders."""


@attrs.frozen(slots=True)
class Verdict:
    """
    Whether there is an order.

    Args:
        linearizable: Whether there is.
        orders: How many beginnings of orders were looked at.
        furthest: When there is none: the longest beginning of one that explains its operations.
    """

    linearizable: bool
    orders: int
    furthest: History = ()


def check(history: History, model: Model[S], start: S) -> Verdict:
    """
    Look for an order of the operations that the model explains.

    An operation without an answer may be left out of it. Raises `Undecided` after `ORDERS_MAX` beginnings.
    """
    operations = tuple(sorted(history, key=lambda each: each.began_s))
    needed = sum(1 << at for at, each in enumerate(operations) if each.outcome is not None)
    seen: set[tuple[int, frozenset[S]]] = set()
    best: tuple[int, ...] = ()
    path: list[int] = []
    stack: list[Iterator[tuple[int, frozenset[S]]]] = []
    orders = 0
    done, states = 0, frozenset({start})
    trail: list[int] = []
    while done & needed != needed:
        stack.append(_next(operations, done, states, model))
        trail.append(done)
        found = None
        while stack and found is None:
            for at, after in stack[-1]:
                key = (trail[-1] | (1 << at), after)
                if key not in seen:
                    seen.add(key)
                    found = (at, after)
                    break
            if found is None:
                stack.pop()
                trail.pop()
                if path:
                    path.pop()
        if found is None:
            furthest = tuple(operations[at] for at in best)
            return Verdict(False, orders, furthest)
        orders += 1
        if orders > ORDERS_MAX:
            raise Undecided(f"{len(operations)} operations have more than {ORDERS_MAX:,} orders")
        at, states = found
        done = trail[-1] | (1 << at)
        path.append(at)
        if len(path) > len(best):
            best = tuple(path)
    return Verdict(True, orders)


def _next(
    operations: History, done: int, states: frozenset[S], model: Model[S]
) -> Iterator[tuple[int, frozenset[S]]]:
    """Which operations can be the next: those that began before any other that is left has ended. Answered ones first."""
    left = [at for at in range(len(operations)) if not done >> at & 1]
    until_s = min(operations[at].ended_s for at in left)
    able = [at for at in left if operations[at].began_s <= until_s]
    able.sort(key=lambda at: (operations[at].outcome is None, operations[at].ended_s))
    for at in able:
        after = model(states, operations[at])
        if after:
            yield at, after
