"""``logs``: what tasks wrote."""

from __future__ import annotations

from typing import Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.cli.selectors import Selected, select
from orchestra.client import Client
from orchestra.errors import Malformed
from orchestra.ports import Log
from orchestra.statemachine import ids
from orchestra.statemachine.lifecycles import ATTEMPT_FINAL, TASK_FINAL
from orchestra.statemachine.replies import AttemptView, TaskView
from orchestra.statemachine.values import value

AGAIN_S = 0.3
"""Output comes in pieces of a quarter of a second; asking more often shows nothing more."""


@value
class Output:
    """One stream of an attempt, as ``--json`` prints it; bytes that are no UTF-8 are replaced."""

    selector: str
    attempt_id: str
    number: int
    stream: str
    size: int
    text: str


def logs(
    selector: Annotated[str, Parameter(help="A task or an attempt; of a job all tasks.")] = "last",
    /,
    *,
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], help="Go on until the task has ended.")
    ] = False,
    stderr: Annotated[bool, Parameter(help="What it wrote to stderr instead of stdout.")] = False,
    json: Annotated[bool, Parameter(help="An array of outputs as JSON.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    Print what tasks wrote.

    Byte by byte; of a task that was tried again the last try.
    """
    selected = select(selector)
    stream = "stderr" if stderr else "stdout"
    if json and follow:
        raise Malformed("goes without --follow", where="--json", remedy="leave one of them out")

    async def go(client: Client) -> int:
        tasks = await _tasks(client, selected)
        if json:
            found = [await _output(client, task, attempt, stream) for task, attempt in tasks]
            speech.put_plain_json([output for output in found if output is not None])
            return exits.OK
        for task, attempt_id in tasks:
            if len(tasks) > 1:
                speech.say(speech.clean(f"==> {task.selector} {task.stage} <=="))
            if follow:
                await _followed(client, task, attempt_id, stream)
            else:
                await _printed(client, task, attempt_id, stream)
        return exits.OK

    return with_client(reach, go)


async def _tasks(client: Client, selected: tuple[Selected, ...]) -> list[tuple[TaskView, str]]:
    """Tasks with their attempts, each with the id of the attempt that was named (empty: the last one)."""
    found: list[tuple[TaskView, str]] = []
    for one in selected:
        if one.every:
            raise Malformed("the output of every job is too much", where="all", remedy="name jobs")
        if one.task:
            named = one.text if len(one.text) > ids.ROOT_CHARS + 5 else ""
            found.append((await client.task(one.text), named))
        else:
            job = await client.job(one.text)
            found += [(await client.task(task.id), "") for task in await job.tasks()]
    return found


def _chosen(task: TaskView, attempt_id: str) -> AttemptView | None:
    if attempt_id:
        return next((each for each in task.attempts if each.id == attempt_id), None)
    return task.attempts[-1] if task.attempts else None


async def _output(client: Client, task: TaskView, attempt_id: str, stream: str) -> Output | None:
    attempt = _chosen(task, attempt_id)
    if attempt is None:
        return None
    written = await client.log(attempt.id, stream)
    text = written.decode(errors="replace")
    return Output(task.selector, attempt.id, attempt.number, stream, len(written), text)


async def _printed(client: Client, task: TaskView, attempt_id: str, stream: str) -> None:
    attempt = _chosen(task, attempt_id)
    if attempt is None:
        speech.say(f"{task.selector} has not been tried yet ({task.status})")
        return
    await _copied(client, attempt.id, stream, 0)


async def _copied(client: Client, attempt_id: str, stream: str, offset: int) -> int:
    """Print what is there from ``offset`` on, piece by piece; where it ends."""
    while True:
        read = await client.asker.log(Log(attempt_id, stream, offset))
        if read.data:
            speech.put_bytes(read.data)
        offset += len(read.data)
        if not read.data or offset >= read.size:
            return offset


async def _followed(client: Client, task: TaskView, attempt_id: str, stream: str) -> None:
    number, offset = 0, 0
    while True:
        attempt = _chosen(task, attempt_id)
        over = task.status in TASK_FINAL or (
            bool(attempt_id) and attempt is not None and attempt.status in ATTEMPT_FINAL
        )
        if attempt is not None:
            if number and attempt.number != number:
                # The former try ended meanwhile: what it wrote last comes first.
                await _copied(client, task.attempts[number - 1].id, stream, offset)
                speech.say(f"==> {task.selector}, try {attempt.number} <==")
                offset = 0
            number = attempt.number
            # The status was read before the output, and an end is told after all output: nothing is missed.
            offset = await _copied(client, attempt.id, stream, offset)
        if over:
            return
        await anyio.sleep(AGAIN_S)
        task = await client.task(task.id)
