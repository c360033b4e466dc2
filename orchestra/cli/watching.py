"""``watch``: following a job on a server."""

from __future__ import annotations

from typing import Annotated, Any

import anyio
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.board import Board
from orchestra.cli.fields import seconds
from orchestra.cli.following import follow
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.cli.selectors import select_job
from orchestra.client import Client, Job
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.replies import JobView


def watch(
    selector: Annotated[str, Parameter(help="The job.")] = "last",
    /,
    *,
    timeout: Annotated[
        str | None, Parameter(help="Stop watching after this long, with code 124.")
    ] = None,
    json: Annotated[
        bool, Parameter(help="The finished job as JSON; changes go to stderr.")
    ] = False,
    quiet: Annotated[bool, Parameter(name=["--quiet", "-q"], help="Only wait.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    Watch a job until it ends; the exit code tells how.

    A server that is started again meanwhile is waited for. Ctrl-C ends the watching, not the job.
    """
    wanted = select_job(selector)
    timeout_s = seconds(timeout, "--timeout")

    async def go(client: Client) -> int:
        job = await client.job(wanted.text)
        return await watch_to_end(client, job, timeout_s, json=json, quiet=quiet, replay=False)

    return with_client(reach, go)


async def watch_to_end(
    client: Client,
    job: Job[Any],
    timeout_s: float | None,
    *,
    json: bool,
    quiet: bool,
    replay: bool,
) -> int:
    """Follow a job and tell how it ended; the exit code. Raises TimeoutError."""
    from orchestra.cli.live import Display, Lines, Silent
    from orchestra.cli.summary import end_text, tell_failures, tell_retried

    view: JobView | None = None
    board = Board()
    with anyio.move_on_after(timeout_s):
        if json or quiet:
            audience = Silent() if quiet else Lines(speech.say)
            view = await follow(job, audience, replay=replay, board=board)
        elif speech.is_live():
            with Display() as display:
                view = await follow(job, display, replay=replay, board=board)
        else:
            view = await follow(job, Lines(), replay=replay, board=board)
    if view is None:
        raise TimeoutError(f"job {job.number} has not ended in time; it goes on")
    if json:
        speech.put_json(view)
    elif not quiet:
        await tell_retried(client, job, board)
        if view.status is JobStatus.FAILED:
            await tell_failures(client, job, kept=True)
        speech.put(end_text(view))
    return exits.OF_JOB[view.status]
