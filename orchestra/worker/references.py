"""
Results of earlier stages in the options of a later one.

A template may hold, anywhere as a JSON value, ``{"$results": "stage"}``, which stands for the list of all results of that stage
in order of position, or ``{"$result": "stage"}``, which stands for the result of the task with the same offset in a
pairwise stage, or the only one of a
stage of one task.
Results are put in as the bytes that they are, unread.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import cast

import anyio

from orchestra.errors import Malformed
from orchestra.ports import Asker
from orchestra.statemachine import ids, limits
from orchestra.statemachine.lifecycles import AttemptStatus, TaskStatus
from orchestra.statemachine.queries import GetJob, GetTask, ListResults
from orchestra.statemachine.replies import Order, StageView, TaskResult
from orchestra.statemachine.values import value

CACHE_ENTRIES_MAX = 64
"""Lists of results kept at hand: tasks of one fan-out ask for the same ones in a row."""

CACHE_BYTES_MAX = 64 * 1024 * 1024
"""Memory for these lists, and the most that one list may have: options of this size belong in a file."""

_MARK = b'"$result'


def has_references(template: bytes) -> bool:
    """Whether a template may hold references: quick, and wrong only in the direction that costs a second look."""
    return _MARK in template


@value
class Reference:
    """``every``: all results of the stage; else the one with the same offset."""

    stage: str
    every: bool


def _reference(value: Mapping[str, object]) -> Reference | None:
    if len(value) != 1:
        return None
    ((key, stage),) = value.items()
    if key in ("$results", "$result") and isinstance(stage, str):
        return Reference(stage, key == "$results")
    return None


def _marked(value: object, found: dict[Reference, str], mark: str) -> object:
    """``value`` with a text of its own in place of every reference; ``found`` tells which stands for which."""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        reference = _reference(mapping)
        if reference is not None:
            return found.setdefault(reference, f"{mark}{len(found)}")
        return {key: _marked(inner, found, mark) for key, inner in mapping.items()}
    if isinstance(value, list):
        return [_marked(inner, found, mark) for inner in cast("list[object]", value)]
    return value


class Results:
    """
    Fills references in. Keeps what it read in a small cache: results of a completed stage never change while a task after it waits to
    start.
    """

    def __init__(self) -> None:
        self._lists: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lists_bytes = 0
        self._stages: OrderedDict[str, Mapping[str, StageView]] = OrderedDict()
        # One reader at a time: a thousand tasks that start together cost one reading of the list.
        self._lock = anyio.Lock()

    async def filled(self, order: Order, asker: Asker) -> bytes:
        """
        The order's template with every reference replaced.

        Raises:
            Malformed: The template is no JSON, or a result it refers to does not exist.
            Rejected: As the orchestrator answered.
            Unavailable: The orchestrator did not answer; try again.
        """
        found: dict[Reference, str] = {}
        mark = "$mark:"
        try:
            text = order.template.decode()
            while mark in text:
                mark += ":"
            template = _marked(json.loads(text), found, mark)
        except (ValueError, RecursionError) as error:
            raise Malformed(f"the template is not JSON: {error}", where="template") from error
        values: dict[bytes, bytes] = {}
        for reference, text_mark in found.items():
            if reference.every:
                value = await self._all(order.job_id, reference.stage, asker)
            else:
                value = await self._one(order, reference.stage, asker)
            values[json.dumps(text_mark).encode()] = value
        # One pass, so that what a result holds is never taken for a mark.
        places = re.compile(b'"' + re.escape(mark.encode()) + b'[0-9]+"')
        return places.sub(lambda place: values[place[0]], json.dumps(template).encode())

    async def _all(self, job_id: str, stage: str, asker: Asker) -> bytes:
        key = (job_id, stage)
        async with self._lock:
            if key in self._lists:
                self._lists.move_to_end(key)
                return self._lists[key]
            value = await _read_list(job_id, stage, asker)
            self._lists[key] = value
            self._lists_bytes += len(value)
            while len(self._lists) > CACHE_ENTRIES_MAX or self._lists_bytes > CACHE_BYTES_MAX:
                _, dropped = self._lists.popitem(last=False)
                self._lists_bytes -= len(dropped)
            return value

    async def _one(self, order: Order, stage: str, asker: Asker) -> bytes:
        view = await self._stage(order.job_id, stage, asker)
        # A stage of one task has one result, which is the same for every task after it.
        offset = 0 if view.size == 1 else order.offset
        if offset >= view.size:
            problem = f"stage {stage!r} has {view.size} tasks and this is task {order.offset + 1}"
            raise Malformed(problem, where="template", remedy="pair stages of the same size")
        task_id = ids.task_id(order.job_id, view.first + offset)
        task = await asker.answer(GetTask(task_id))
        for attempt in reversed(task.attempts):
            if attempt.status is AttemptStatus.COMPLETED and task.status is TaskStatus.COMPLETED:
                return attempt.result or b"null"
        raise _absent(stage, task.position, task.status)

    async def _stage(self, job_id: str, stage: str, asker: Asker) -> StageView:
        async with self._lock:
            if job_id not in self._stages:
                job = await asker.answer(GetJob(job_id))
                self._stages[job_id] = {view.name: view for view in job.stages}
                if len(self._stages) > CACHE_ENTRIES_MAX:
                    self._stages.popitem(last=False)
            view = self._stages[job_id].get(stage)
        if view is None:
            raise Malformed(f"the job has no stage {stage!r}", where="template")
        return view


async def _read_list(job_id: str, stage: str, asker: Asker) -> bytes:
    values: list[bytes] = []
    size = 0
    after = ""
    while True:
        page = await asker.answer(ListResults(job_id, stage, after, limits.PAGE_MAX))
        for item in page.items:
            values.append(_value(item, stage))
            size += len(values[-1]) + 1
        if size > CACHE_BYTES_MAX:
            problem = f"the results of stage {stage!r} are longer than {CACHE_BYTES_MAX:,} bytes"
            raise Malformed(
                problem, where="template", remedy="write them to files and return their names"
            )
        after = page.next
        if not after:
            return b"[" + b",".join(values) + b"]"


def _value(item: TaskResult, stage: str) -> bytes:
    if item.status is not TaskStatus.COMPLETED:
        raise _absent(stage, item.position, item.status)
    return item.result or b"null"


def _absent(stage: str, position: int, status: TaskStatus) -> Malformed:
    problem = f"task {position} of stage {stage!r} has no result: it is {status}"
    return Malformed(problem, where="template", remedy="name the stage in after or pairwise")
