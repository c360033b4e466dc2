"""As which worker something is asked: by its name for a join, by the name behind its id for all else that workers say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from orchestra.dialects.asks import AppendLog
from orchestra.errors import NotFound
from orchestra.ports import WatchOrders
from orchestra.statemachine import State
from orchestra.statemachine.commands import JoinWorker, LeaveWorker
from orchestra.statemachine.records import Attempt, Worker
from orchestra.statemachine.reports import AttemptsReported, Heartbeat

BY_ID = "worker_id"


def _joining(state: State, asked: JoinWorker) -> str:
    del state
    return asked.name


def _known(state: State, asked: Heartbeat | LeaveWorker | WatchOrders) -> str:
    worker = state.find(Worker, asked.worker_id)
    return "" if worker is None else worker.name


def _reporting(state: State, asked: AttemptsReported) -> str:
    return _telling(state, asked.worker_id, (report.attempt_id for report in asked.reports))


def _writing(state: State, asked: AppendLog) -> str:
    return _telling(state, asked.worker_id, (chunk.attempt_id for chunk in asked.chunks))


def _telling(state: State, worker_id: str, attempt_ids: Iterable[str]) -> str:
    worker = state.find(Worker, worker_id)
    if worker is not None:
        return worker.name
    # Its row has left memory, and its attempts may not have: late words would be kept of them, and nobody knows whose.
    attempts = (state.find(Attempt, attempt_id) for attempt_id in attempt_ids)
    if any(attempt is not None and attempt.worker_id == worker_id for attempt in attempts):
        told = "there is no such worker any more"
        raise NotFound(told, where=BY_ID, remedy="join again")
    return ""


WORKER_OF: Mapping[type[Any], tuple[str, Callable[[State, Any], str]]] = MappingProxyType(
    {
        JoinWorker: ("name", _joining),
        Heartbeat: (BY_ID, _known),
        AttemptsReported: (BY_ID, _reporting),
        AppendLog: (BY_ID, _writing),
        LeaveWorker: (BY_ID, _known),
        WatchOrders: (BY_ID, _known),
    }
)
"""All that a worker asks: the field that names it, and how to find its name. A test holds this to the routes of workers."""


def acted_as(state: State, asked: object) -> tuple[str, str]:
    """
    The name of the worker that this is asked as, and the field that tells it. No name for what is not a worker's to ask, and for an id
    that nobody has: the core's answer to that concerns no worker.

    Raises:
        NotFound: The worker is not known any more, and attempts of its are.
    """
    where, find = WORKER_OF.get(type(asked), ("", None))
    return ("" if find is None else find(state, asked)), where
