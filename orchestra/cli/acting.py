"""Commands that change something: ``stop``, ``pause``, ``resume``, ``retry``, their kin for workers, and ``backup``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated

import attrs
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.fields import duration_ms
from orchestra.cli.project import absolute
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.cli.selectors import Selected, select
from orchestra.client import Client
from orchestra.dialects.quoting import nearest
from orchestra.errors import Conflict, Malformed, NotFound
from orchestra.statemachine.commands import (
    CancelJob,
    CancelTask,
    PauseJob,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    RetryTask,
)
from orchestra.statemachine.lifecycles import JOB_FINAL
from orchestra.statemachine.replies import WorkerView
from orchestra.statemachine.values import value


@value
class Changed:
    """What a command did to one thing, as ``--json`` prints it in an array."""

    subject: str
    id: str
    status: str


Json = Annotated[bool, Parameter(help="What became of each, as JSON.")]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], help="Say nothing about what went well.")]
Reason = Annotated[str, Parameter(help="Why; it is shown wherever the effect is.")]


def _tell(changed: list[Changed], *, json: bool, quiet: bool) -> None:
    if json:
        speech.put_plain_json(changed)
    elif not quiet:
        for each in changed:
            speech.put(speech.clean(f"{each.subject}  {each.status}"))


def _selected(words: tuple[str, ...]) -> list[Selected]:
    if not words:
        remedy = "name what is meant: 17, last, 17.3, 3,5-8 or all"
        raise Malformed("there is no selector", where="selector", remedy=remedy)
    return list(dict.fromkeys(one for word in words for one in select(word)))


async def _jobs(client: Client, selected: list[Selected], live: bool) -> list[tuple[str, str]]:
    """Jobs as (subject, id); ``all`` is every job that has not ended."""
    found: dict[str, str] = {}
    for one in selected:
        if one.task:
            told = f"{one.text} is a task"
            raise Malformed(
                told, where="selector", remedy=f"name its job: {one.text.split('.')[0]}"
            )
        if not one.every:
            job = await client.job(one.text)
            found[job.id] = f"job {job.number}"
            continue
        async for number, id in _every(client, live=live):
            found[id] = f"job {number}"
    return [(subject, id) for id, subject in found.items()]


async def _every(client: Client, *, live: bool) -> AsyncIterator[tuple[int, str]]:
    """Number and id of every job, or of every one that has not ended."""
    from orchestra.statemachine.queries import ListJobs

    after = ""
    while True:
        page = await client.asker.answer(ListJobs("", "", after, 500))
        for job in page.items:
            if not live or job.status not in JOB_FINAL:
                yield job.number, job.id
        after = page.next
        if not after:
            return


def stop(
    *selectors: Annotated[str, Parameter(help="Jobs and tasks.")],
    reason: Reason = "",
    grace: Annotated[
        str | None,
        Parameter(help="How long each rung (asked, TERM, KILL) lasts. [default: the task's, 5s]"),
    ] = None,
    wait: Annotated[bool, Parameter(help="Until nothing of it is alive.")] = False,
    timeout: Annotated[
        str | None, Parameter(help="With --wait: at most so long, with code 124.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """
    Stop jobs and tasks.

    What waits ends at once, what runs is asked, then terminated, then killed.

    `cancelled` is shown when nothing of it is alive any more.
    """
    from orchestra.cli.fields import seconds

    selected = _selected(selectors)
    grace_ms = None if grace is None else duration_ms(grace, "--grace")
    timeout_s = seconds(timeout, "--timeout")

    async def go(client: Client) -> list[Changed]:
        changed: list[Changed] = []
        jobs = await _jobs(client, [one for one in selected if not one.task], live=True)
        tasks = [await client.task(one.text) for one in selected if one.task]
        for subject, id in jobs:
            done = await client.asker.ask(CancelJob(id, reason, grace_ms))
            changed.append(Changed(subject, id, str(done.status)))
        for task in tasks:
            ended = await client.asker.ask(CancelTask(task.id, reason, grace_ms))
            changed.append(Changed(task.selector, task.id, str(ended.status)))
        return await _awaited(client, changed, timeout_s) if wait else changed

    _tell(with_client(reach, go), json=json, quiet=quiet)
    return exits.OK


async def _awaited(
    client: Client, changed: list[Changed], timeout_s: float | None
) -> list[Changed]:
    """The same once everything has ended. Raises TimeoutError."""
    import anyio

    from orchestra.statemachine.lifecycles import TASK_FINAL

    done: list[Changed] = []
    with anyio.move_on_after(timeout_s):
        for each in changed:
            if each.subject.startswith("job "):
                view = await (await client.job(each.id)).wait()
                done.append(attrs.evolve(each, status=str(view.status)))
                continue
            task = await client.task(each.id)
            while task.status not in TASK_FINAL:
                await anyio.sleep(0.2)
                task = await client.task(each.id)
            done.append(attrs.evolve(each, status=str(task.status)))
    if len(done) < len(changed):
        raise TimeoutError(
            f"{changed[len(done)].subject} has not ended in time; it is being stopped"
        )
    return done


def _each_job(
    selectors: tuple[str, ...],
    reach: Reach,
    act: Callable[[Client, str], Awaitable[str]],
) -> list[Changed]:
    selected = _selected(selectors)

    async def go(client: Client) -> list[Changed]:
        found = await _jobs(client, selected, live=True)
        return [Changed(subject, id, await act(client, id)) for subject, id in found]

    return with_client(reach, go)


def pause(
    *jobs: Annotated[str, Parameter(help="Jobs.")],
    reason: Reason = "",
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Pause jobs: no further task starts, what runs goes on."""

    async def act(client: Client, id: str) -> str:
        return str((await client.asker.ask(PauseJob(id, reason))).status)

    _tell(_each_job(jobs, reach, act), json=json, quiet=quiet)
    return exits.OK


def resume(
    *jobs: Annotated[str, Parameter(help="Jobs.")],
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Go on with paused jobs."""

    async def act(client: Client, id: str) -> str:
        return str((await client.asker.ask(ResumeJob(id))).status)

    _tell(_each_job(jobs, reach, act), json=json, quiet=quiet)
    return exits.OK


def retry(
    *tasks: Annotated[str, Parameter(help="Tasks; of a job all that failed or were cancelled.")],
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Try failed or cancelled tasks again."""
    selected = _selected(tasks)

    async def go(client: Client) -> list[Changed]:
        wanted: dict[str, str] = {}
        for one in selected:
            if one.every:
                raise Malformed("every job is too much", where="all", remedy="name jobs or tasks")
            if one.task:
                task = await client.task(one.text)
                wanted[task.id] = task.selector
                continue
            job = await client.job(one.text)
            for status in ("failed", "cancelled"):
                wanted.update({t.id: t.selector for t in await job.tasks(status=status)})
        return await _tried_again(client, wanted)

    changed = with_client(reach, go)
    _tell(changed, json=json, quiet=quiet)
    if not changed:
        speech.say("nothing failed or was cancelled")
    return exits.OK


async def _tried_again(client: Client, wanted: dict[str, str]) -> list[Changed]:
    """
    Retry tasks, by id with their selectors. One that comes after others of them is asked for once more when those have been.

    Raises:
        Conflict: The first refusal, when none of those that are left can be tried again.
    """
    changed: list[Changed] = []
    while wanted:
        refused: dict[str, str] = {}
        first: Conflict | None = None
        for id, selector in wanted.items():
            try:
                done = await client.asker.ask(RetryTask(id))
            except Conflict as refusal:
                refused[id] = selector
                first = first or refusal
            else:
                changed.append(Changed(selector, id, str(done.status)))
        if first is not None and len(refused) == len(wanted):
            raise first
        wanted = refused
    return changed


async def find_worker(client: Client, name: str) -> WorkerView:
    """The worker with this name or id. Raises `NotFound` with the nearest name."""
    found = await client.workers()
    for each in found:
        if name in (each.name, each.id):
            return each
    near = nearest(name, [each.name for each in found])
    remedy = f"did you mean {near}?" if near else "orchestra workers lists them"
    raise NotFound(f"there is no worker {name!r}", where="worker", remedy=remedy)


def pause_worker(
    name: Annotated[str, Parameter(help="The worker.")],
    /,
    *,
    reason: Reason = "",
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Give a worker nothing new; what it runs goes on."""

    async def go(client: Client) -> list[Changed]:
        worker = await find_worker(client, name)
        await client.asker.ask(PauseWorker(worker.id, reason))
        return [Changed(worker.name, worker.id, "paused")]

    _tell(with_client(reach, go), json=json, quiet=quiet)
    return exits.OK


def resume_worker(
    name: Annotated[str, Parameter(help="The worker.")],
    /,
    *,
    json: Json = False,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Give a paused worker work again."""

    async def go(client: Client) -> list[Changed]:
        worker = await find_worker(client, name)
        done = await client.asker.ask(ResumeWorker(worker.id))
        return [Changed(worker.name, worker.id, str(done.status))]

    _tell(with_client(reach, go), json=json, quiet=quiet)
    return exits.OK


def backup(
    file: Annotated[str, Parameter(help="A new file, on the server's machine.")],
    /,
    *,
    quiet: Quiet = False,
    reach: Reach = USUAL,
) -> int:
    """Copy everything into a new file while the server serves."""
    target = absolute(file)

    async def go(client: Client) -> None:
        await client.asker.backup(target)

    with_client(reach, go)
    if not quiet:
        speech.put(speech.clean(target))
    return exits.OK
