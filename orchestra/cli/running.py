"""``run``: a whole project in this process."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.board import Board
from orchestra.cli.fields import seconds
from orchestra.cli.following import Audience, follow
from orchestra.client import Client, Job
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.replies import JobView

DIGEST_CHARS = 32
"""Of a content's digest (128 bits): no two that anybody runs are the same."""

FORMER_MAX = 1_000
"""So many runs of the same content within a day are looked through for one that did not end."""


def run(
    project: Annotated[str, Parameter(help="The project file, or the folder that has it.")],
    /,
    *,
    data: Annotated[
        str | None, Parameter(help="Keep everything in this file. Without it, in memory.")
    ] = None,
    slots: Annotated[
        int | None, Parameter(help="Tasks at a time; as many as there are cpus.")
    ] = None,
    timeout: Annotated[str | None, Parameter(help="Cancel the job after this long.")] = None,
    json: Annotated[
        bool, Parameter(help="The finished job as JSON; progress goes to stderr.")
    ] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Tell failures only.")] = False,
) -> int:
    """
    Run a project in this process, from start to end.

    No server is needed. On a terminal progress is drawn; piped, each change is one line. Ctrl-C cancels the job in good order.
    """
    from orchestra.cli.joining import check_slots
    from orchestra.cli.project import read_project

    command = read_project(project)
    timeout_s = seconds(timeout, "--timeout")
    if slots is not None:
        check_slots(slots)

    async def go() -> int:
        return await _run(command, data, slots, timeout_s, json=json, quiet=quiet)

    return anyio.run(go)


async def _run(
    command: SubmitJob,
    path: str | None,
    slots: int | None,
    timeout_s: float | None,
    *,
    json: bool,
    quiet: bool,
) -> int:
    from orchestra import compose
    from orchestra.cli.summary import tell_retried
    from orchestra.worker.detect import cpus

    if slots is None:
        slots = max(1, cpus() // 1_000)
    async with AsyncExitStack() as stack:
        orchestrator = await stack.enter_async_context(compose.open_orchestrator(path))
        folder = None if path is None else f"{path}.attempts"
        await stack.enter_async_context(
            compose.local_workers(
                orchestrator, {}, count=1, slots=slots, processes=True, folder=folder
            )
        )
        client = Client(orchestrator.for_principal("local"))
        job = await (client.submit(command) if path is None else _taken_up(client, command))
        board = Board()
        view, late = await _followed(job, board, timeout_s, json=json, quiet=quiet)
        if json:
            speech.put_json(view)
        if not (quiet or json):
            await tell_retried(client, job, board)
        await _tell_end(client, job, view, command, quiet=quiet or json)
        if late:
            told = (
                f"the job had not ended after {speech.elapsed_text(int((timeout_s or 0) * 1_000))}"
            )
            speech.complain(f"{told} and was cancelled", where="--timeout")
            return exits.TIMEOUT
        return exits.OF_JOB[view.status]


async def _taken_up(client: Client, command: SubmitJob) -> Job[Any]:
    """
    The job of the same content that a run which was killed left unfinished in the file, or a new one.

    A key is one job for a day, so runs of the same content have keys in a row, of which the last one's may not have ended.
    """
    import hashlib

    import msgspec

    content = hashlib.sha256(msgspec.msgpack.encode(command)).hexdigest()[:DIGEST_CHARS]
    former = ""
    for _ in range(FORMER_MAX):
        accepted = await client.asker.ask(command, key=f"run {content}{former}")
        for warning in accepted.warnings:
            speech.say(f"job {accepted.number}: {warning}")
        job = await client.job(accepted.job_id)
        if not accepted.repeated:
            return job
        if not await job.done():
            speech.say(f"job {job.number} was left unfinished in this file: it goes on")
            return job
        former = f" after {job.number}"
    return await client.submit(command)


async def _followed(
    job: Job[Any], board: Board, timeout_s: float | None, *, json: bool, quiet: bool
) -> tuple[JobView, bool]:
    """Follow to the end; Ctrl-C and the time limit cancel. Returns the job, and whether its time was over."""
    from orchestra.cli.live import Display, Lines, Silent

    late = False

    async def obey() -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            grace_ms: int | None = None
            async for number in signals:
                again = "; once more gives no grace" if grace_ms is None else ""
                speech.say(f"cancelling{again}")
                await job.cancel(f"{signal.Signals(number).name} to `run`", grace_ms=grace_ms)
                grace_ms = 0

    async def limit() -> None:
        nonlocal late
        if timeout_s is not None:
            await anyio.sleep(timeout_s)
            late = True
            await job.cancel("the time limit of `run` passed")

    async def told_to(audience: Audience) -> JobView:
        ended: list[JobView] = []
        async with anyio.create_task_group() as group:
            group.start_soon(obey)
            group.start_soon(limit)
            ended.append(await follow(job, audience, replay=True, board=board))
            group.cancel_scope.cancel()
        return ended[0]

    if json or quiet:
        return await told_to(Silent() if quiet else Lines(speech.say)), late
    if not speech.is_live():
        return await told_to(Lines()), late
    with Display() as display:
        return await told_to(display), late


async def _tell_end(
    client: Client, job: Job[Any], view: JobView, command: SubmitJob, *, quiet: bool
) -> None:
    from orchestra.cli.project import shared_folder
    from orchestra.cli.summary import end_text, tell_failures

    if view.status is JobStatus.FAILED:
        await tell_failures(client, job, kept=False)
    if quiet:
        return
    speech.put(end_text(view))
    folder = _short(shared_folder(command))
    if folder:
        speech.put(speech.clean(f"results are in {folder}"))


def _short(folder: str) -> str:
    """A folder below the present one by its short name; empty when there is none."""
    path = Path(folder)
    if not folder or not path.is_dir():
        return ""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else folder
