"""
What a job of one task promises its clients, in some lines: the specification against which histories are checked.

Written without a line of the core. What happens by itself (the task is given to a worker, or is lost with it) may happen at any moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from orchestra.testing.linearizability.history import Operation

ATTEMPTS_MAX = 12
"""Nothing that a history asks goes on beyond so many attempts."""

REFUSED = "refused"


class JobState(NamedTuple):
    """
    A job of one task, as its clients may think of it.

    Args:
        id: Empty before it was submitted; ``?`` when nobody was told it.
        status: ``open`` is queued or running.
        live: The number of the attempt that a worker holds; 0 when none does.
        attempts: How many there were.
    """

    id: str = ""
    status: str = "absent"
    live: int = 0
    attempts: int = 0


ABSENT = JobState()


def job_model(states: frozenset[JobState], operation: Operation) -> frozenset[JobState]:
    """See `checker.Model`."""
    after: set[JobState] = set()
    for state in _closure(states):
        after.update(_after(state, operation))
    return frozenset(after)


def _closure(states: frozenset[JobState]) -> set[JobState]:
    """What may have happened meanwhile: a task is given to a worker, or is lost with it."""
    found, waiting = set(states), list(states)
    while waiting:
        for state in _by_itself(waiting.pop()):
            if state not in found:
                found.add(state)
                waiting.append(state)
    return found


def _by_itself(state: JobState) -> Iterator[JobState]:
    if state.live:
        if state.status == "cancelling":
            yield state._replace(live=0, status="cancelled")
        else:
            yield state._replace(live=0)
            yield state._replace(live=0, status="failed")  # lost once too often
    elif state.status == "open" and state.attempts < ATTEMPTS_MAX:
        yield state._replace(live=state.attempts + 1, attempts=state.attempts + 1)


def _after(state: JobState, operation: Operation) -> Iterator[JobState]:
    verb, outcome = operation.verb, operation.outcome
    if verb == "submit":
        if not state.id:
            yield JobState(outcome or "?", "open")
        elif outcome is None or state.id in ("?", outcome):
            yield state._replace(id=outcome or state.id)
        return
    if not state.id:
        return  # nobody knows its id
    if verb == "report":
        yield from _reported(state, operation)
        return
    changed = _CHANGES[verb](state) if verb in _CHANGES else state
    right = {state.status} if verb == "view" else {REFUSED if changed is None else "done"}
    if outcome is None or outcome in right:
        yield state if changed is None else changed


def _reported(state: JobState, operation: Operation) -> Iterator[JobState]:
    number, _, end = operation.argument.partition(" ")
    is_taken = state.live == int(number)
    if operation.outcome is not None and (operation.outcome == "taken") != is_taken:
        return
    if not is_taken:
        yield state
        return
    if state.status == "cancelling":
        yield state._replace(live=0, status="cancelled")
    else:
        yield state._replace(live=0, status=end)


def _paused(state: JobState) -> JobState | None:
    return state._replace(status="paused") if state.status in ("open", "paused") else None


def _resumed(state: JobState) -> JobState | None:
    return state._replace(status="open") if state.status in ("open", "paused") else None


def _cancelled(state: JobState) -> JobState | None:
    if state.status in ("cancelling", "cancelled"):
        return state
    if state.status in ("open", "paused"):
        return state._replace(status="cancelling" if state.live else "cancelled")
    return None


def _retried(state: JobState) -> JobState | None:
    return state._replace(status="open") if state.status in ("failed", "cancelled") else None


_CHANGES = {"pause": _paused, "resume": _resumed, "cancel": _cancelled, "retry": _retried}
"""By verb, what comes of it; None when it is refused."""
