"""What is said at a job's end: the counts, and for what failed the reason with the end of its output."""

from __future__ import annotations

from typing import Any

from orchestra.cli import speech
from orchestra.cli.board import Board, item_text
from orchestra.client import Client, Job
from orchestra.errors import NotFound
from orchestra.ports import Log
from orchestra.statemachine.lifecycles import JobStatus, TaskStatus
from orchestra.statemachine.queries import ListTasks
from orchestra.statemachine.replies import JobView, Reason, TaskView, WhyAnswered

SHOWN_FAILURES = 3
TAIL_BYTES = 4_096
TAIL_LINES = 12
"""The last lines of a traceback; the rest is a `logs` away."""


def counts_text(view: JobView) -> str:
    """``25 tasks completed``, or how many of each."""
    if len(view.counts) == 1:
        ((status, count),) = view.counts.items()
        return f"{count} {'task' if count == 1 else 'tasks'} {status}"
    return ", ".join(f"{count} {status}" for status, count in view.counts.items())


def end_text(view: JobView) -> str:
    """One line about a job that has ended."""
    took = speech.elapsed_text((view.ended_at_ms or view.submitted_at_ms) - view.submitted_at_ms)
    reason = f": {view.reason}" if view.reason and view.status is JobStatus.CANCELLED else ""
    told = f"{view.name}: job {view.number} {view.status} in {took}, {counts_text(view)}{reason}"
    return speech.clean(told)


async def tell_failures(client: Client, job: Job[Any], *, kept: bool) -> None:
    """
    Say on stderr why the first failed tasks failed, with the end of what they wrote to stderr.

    Args:
        kept: The job can be asked about afterwards, so what to ask is told too.
    """
    page = await client.asker.answer(ListTasks(job.id, TaskStatus.FAILED, "", SHOWN_FAILURES + 1))
    for task in page.items[:SHOWN_FAILURES]:
        await _tell_failure(client, task, kept=kept)
    if len(page.items) > SHOWN_FAILURES:
        more = f": orchestra ls {job.number} --status failed" if kept else ""
        speech.say(f"\nmore tasks failed{more}")
    speech.say("")


async def tell_retried(client: Client, job: Job[Any], board: Board) -> None:
    """Say on stderr why the first tasks that were tried again, and completed then, had to be."""
    shown = 0
    for position in board.retried:
        task = await client.task(f"{job.number}.{position}")
        if task.status is not TaskStatus.COMPLETED:
            continue
        if shown == SHOWN_FAILURES:
            speech.say("\nmore tasks were tried again")
            break
        shown += 1
        why = await client.why(task.id)
        speech.say("")
        speech.say(speech.clean(f"{_label(task)} completed after {len(task.attempts)} tries:"))
        _tell_tries(why)
    if shown:
        speech.say("")


def _label(task: TaskView) -> str:
    return " ".join(word for word in (task.selector, task.stage, item_text(task.item)) if word)


def _tell_tries(why: WhyAnswered) -> None:
    """The reasons below the first, which is told already: one for each of the last attempts that did not complete."""
    for reason in why.reasons[1:]:
        speech.say(speech.clean(f"  {reason.text}"))


async def _tell_failure(client: Client, task: TaskView, *, kept: bool) -> None:
    whole = await client.task(task.id)
    why = await client.why(task.id)
    reason = why.reasons[0] if why.reasons else Reason("failed", task.reason)
    several = len(whole.attempts) > 1
    tries = f" after {len(whole.attempts)} tries" if several else ""
    speech.say("")
    speech.say(speech.clean(f"{_label(task)} failed{tries}: {reason.text}"), "bold red")
    if several:
        _tell_tries(why)
    if whole.attempts:
        for line in await tail(client, whole.attempts[-1].id):
            speech.say(f"  | {line}")
    if kept:
        speech.say(f"  help: orchestra logs {task.selector}, orchestra retry {task.selector}")


async def tail(client: Client, attempt_id: str, stream: str = "stderr") -> list[str]:
    """The last lines of an attempt's output, with control characters escaped."""
    try:
        size = (await client.asker.log(Log(attempt_id, stream, 0, 1))).size
        read = await client.asker.log(
            Log(attempt_id, stream, max(0, size - TAIL_BYTES), TAIL_BYTES)
        )
    except NotFound:
        return []
    lines = read.data.decode(errors="replace").splitlines()
    if size > TAIL_BYTES:
        lines = lines[1:]
    return [speech.clean(line.expandtabs()) for line in lines[-TAIL_LINES:]]
