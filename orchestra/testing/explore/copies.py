"""Copies of the orchestrator's state: what a step changes is the copy's own."""

from __future__ import annotations

from collections import deque
from typing import cast

from orchestra.statemachine import State
from orchestra.statemachine.index import StageTally


def copied(state: State) -> State:
    """A state of its own with the same rows, look-ups and soft state. Records never change, so they are shared."""
    copy = State()
    for kind, rows in state.rows.items():
        copy.rows[kind].update(rows)
    for name, held in vars(state.index).items():
        if name not in ("_rows", "_follow"):
            setattr(copy.index, name, _copied(held))
    copy.pulses = dict(state.pulses)
    copy.progress = dict(state.progress)
    return copy


def _copied(held: object) -> object:
    if isinstance(held, dict):
        plain = cast("dict[object, object]", held)
        return {key: _copied(each) for key, each in plain.items()}
    if isinstance(held, list):
        return list(cast("list[object]", held))
    if isinstance(held, deque):
        return deque(cast("deque[object]", held))
    if isinstance(held, StageTally):
        tally = StageTally()
        for name in StageTally.__slots__:
            setattr(tally, name, getattr(held, name))
        return tally
    return held
