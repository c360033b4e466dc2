"""
Selectors: how jobs and tasks are named on the command line.

==================== ======================================================
``17``               job 17
``last``             the newest job
``all``              every job
``3,5-8``            jobs 3, 5, 6, 7 and 8
``17.3``             task 3 of job 17
``17.3-9``           tasks 3 to 9 of job 17
``last.3``           task 3 of the newest job
``0000000h6v3k9q...``  an id, as printed
==================== ======================================================
"""

from __future__ import annotations

import re

from orchestra.dialects.quoting import shown
from orchestra.errors import Malformed
from orchestra.statemachine import ids, limits
from orchestra.statemachine.values import value

SELECTED_MAX = 10_000
"""So many things are named at once; more than that is a whole job, or ``all``."""

TEXT_CHARS_MAX = 4_096

_NUMBER_MAX = 32**8 - 1
_PART = re.compile(
    r"(?P<job>last|[0-9]{1,15})(?:\.(?P<first>[0-9]{1,15}))?(?:-(?P<last>[0-9]{1,15}))?"
)
_ID = re.compile(rf"[{ids.DIGITS}]{{{ids.ROOT_CHARS}}}(-[{ids.DIGITS}]{{4}}){{0,2}}")
_REMEDY = "write 17, last, 3,5-8, 17.3, 17.3-9, all, or an id"


@value
class Selected:
    """
    One thing that was named.

    ``text`` is what the server understands (``17``, ``last``, ``17.3``, an id); empty with ``every``, which is all jobs. ``task``
    tells a task (or attempt) from a job.
    """

    text: str
    task: bool = False
    every: bool = False


def select(text: str) -> tuple[Selected, ...]:
    """
    What a selector names, in the order written, each once.

    Raises:
        Malformed: It is no selector, ends before it begins, or names more than `SELECTED_MAX` things.
    """
    if len(text) > TEXT_CHARS_MAX:
        raise Malformed("a selector is not so long", where="selector", remedy=_REMEDY)
    found: dict[Selected, None] = {}
    after_task = False
    for part in text.split(","):
        if part == "all":
            found[Selected("", every=True)] = None
            continue
        if _ID.fullmatch(part):
            found[Selected(part, task=len(part) > ids.ROOT_CHARS)] = None
            continue
        match = _PART.fullmatch(part)
        if match is None:
            raise _no_selector(part)
        if match["first"] is None and after_task:
            # `stop 17.3,5`: nobody should lose job 5 over task 5.
            remedy = f"for a task write {text.partition('.')[0]}.{part}, for a job name it first"
            told = f"{shown(part)} after a task could be a job or a task"
            raise Malformed(told, where="selector", remedy=remedy)
        after_task = match["first"] is not None
        for one in _unfolded(part, match):
            found[one] = None
        _check_count(len(found))
    return tuple(found)


def select_one(text: str) -> Selected:
    """As `select`, for commands that take one job or task."""
    found = select(text)
    if len(found) != 1 or found[0].every:
        remedy = "name a single job or task, such as last or 17.3"
        raise Malformed(f"{shown(text)} names more than one", where="selector", remedy=remedy)
    return found[0]


def select_job(text: str) -> Selected:
    """As `select_one`, for commands that take a job."""
    found = select_one(text)
    if found.task:
        raise Malformed(f"{shown(text)} names a task", where="selector", remedy="name its job")
    return found


def _no_selector(part: str) -> Malformed:
    return Malformed(f"{shown(part)} is no selector", where="selector", remedy=_REMEDY)


def _check_count(count: int) -> None:
    if count > SELECTED_MAX:
        told = f"it names more than {SELECTED_MAX:,} things"
        raise Malformed(told, where="selector", remedy="name the job, or all")


def _unfolded(part: str, match: re.Match[str]) -> list[Selected]:
    job, first, last = match["job"], match["first"], match["last"]
    if first is None:
        if last is None:
            return [Selected(job if job == "last" else str(_number(job, part)))]
        if job == "last":
            raise _no_selector(part)
        span = _span(part, _number(job, part), _number(last, part))
        return [Selected(str(number)) for number in span]
    head = job if job == "last" else str(_number(job, part))
    start = _position(first, part)
    end = start if last is None else _position(last, part)
    return [Selected(f"{head}.{position}", task=True) for position in _span(part, start, end)]


def _span(part: str, first: int, last: int) -> range:
    if last < first:
        raise Malformed(f"{shown(part)} ends before it begins", where="selector")
    _check_count(last - first + 1)
    return range(first, last + 1)


def _number(digits: str, part: str) -> int:
    number = int(digits)
    if not 1 <= number <= _NUMBER_MAX:
        raise Malformed(f"{shown(part)}: jobs are counted from 1", where="selector")
    return number


def _position(digits: str, part: str) -> int:
    position = int(digits)
    if not 1 <= position <= limits.TASKS_PER_JOB_MAX:
        raise Malformed(f"{shown(part)}: tasks are counted from 1", where="selector")
    return position
