"""Following a job to its end, through restarts of the server: one loop for ``run``, ``watch`` and whoever waits."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio

from orchestra.cli.board import Board, Change
from orchestra.client import Job
from orchestra.errors import PeerClosed, Rejected, Unavailable
from orchestra.ports import Lagged, Moved, ProgressSeen, Push, WatchStory
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import ListTasks
from orchestra.statemachine.replies import JobView

PATIENCE_S = 60.0
"""How long a server may be away while it is watched: a restart with a large file is over by then."""

AGAIN_S = 0.5
IDLE_S = 2.0
"""When nothing has run for so long, people want to know why."""

TICK_S = 0.25
"""How often what is drawn is drawn anew: often enough to look alive, too rarely to cost anything."""

TASKS_MAX = 50_000
"""Of a larger job the stages are counted from what happens from now on: its list is some hundred pages."""


class Audience(Protocol):
    """Who is told."""

    def opened(self, board: Board) -> None:
        """The job is known."""
        ...

    def changed(self, board: Board, change: Change) -> None:
        """Something happened."""
        ...

    def ticked(self, board: Board) -> None:
        """Time passed, or progress was told."""
        ...

    def waits(self, board: Board, text: str) -> None:
        """Nothing runs, and this is why (a new reason each time)."""
        ...

    def lost(self, text: str) -> None:
        """The server is away; it is tried again."""
        ...


async def follow(
    job: Job[Any], audience: Audience, *, replay: bool, board: Board | None = None
) -> JobView:
    """
    Tell an audience what happens to a job until it ends; returns the job as it ended.

    Args:
        replay: Tell from the job's beginning, else from the present.
        board: Where it is kept what was seen, for whoever asks afterwards.

    Raises:
        Unavailable: The server was away for longer than `PATIENCE_S`, or was never there.
    """
    board = Board() if board is None else board
    away_since: float | None = None
    while True:
        number = board.number
        try:
            if await _followed_once(job, board, audience, replay=replay):
                return await job.view()
            away_since = None
        except Unavailable as error:
            if board.view is None:
                raise
            now = anyio.current_time()
            if away_since is None or board.number > number:
                away_since = now
                audience.lost(str(error))
            elif now - away_since > PATIENCE_S:
                raise
            await anyio.sleep(AGAIN_S)


async def _followed_once(job: Job[Any], board: Board, audience: Audience, *, replay: bool) -> bool:
    """Follow over one subscription. True when the job has ended, False when we were too slow and begin anew."""
    after = board.number or (0 if replay else -1)
    async with job.client.asker.watch(WatchStory(after, job.id)) as pushes:
        first = board.view is None
        board.open(await job.view())
        if after == -1:
            await _load_tasks(job, board)
        if first:
            audience.opened(board)
        if board.ended and not replay:
            return True
        failure: Unavailable | None = None
        ended = False
        # What a task group raises is a group of errors; here only one thing can fail.
        async with anyio.create_task_group() as group:
            group.start_soon(_tick, board, audience)
            group.start_soon(_ask_why, job, board, audience)
            try:
                ended = await _read(pushes, board, audience)
            except Unavailable as error:
                failure = error
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return ended


async def _read(pushes: AsyncIterator[Push], board: Board, audience: Audience) -> bool:
    async for push in pushes:
        if isinstance(push, Moved):
            change = board.moved(push)
            if change is not None:
                audience.changed(board, change)
            if push.kind == "job" and board.ended:
                return True
        elif isinstance(push, ProgressSeen):
            board.progressed(push)
        elif isinstance(push, Lagged):
            return False
    raise PeerClosed("the server closed the connection")


async def _load_tasks(job: Job[Any], board: Board) -> None:
    if board.view is None or board.view.tasks > TASKS_MAX:
        return
    after = ""
    while True:
        page = await job.client.asker.answer(ListTasks(job.id, "", after, 500))
        board.load(page.items)
        after = page.next
        if not after:
            return


async def _tick(board: Board, audience: Audience) -> None:
    while True:
        await anyio.sleep(TICK_S)
        audience.ticked(board)


async def _ask_why(job: Job[Any], board: Board, audience: Audience) -> None:
    """When nothing runs for a while, tell why; each reason once in a row."""
    told = ""
    while True:
        await anyio.sleep(IDLE_S)
        position = board.first_with(TaskStatus.QUEUED) or board.first_with(TaskStatus.BACKOFF)
        if not board.idle or position is None:
            told = ""
            continue
        try:
            why = await job.client.why(f"{job.number}.{position}")
        except (Unavailable, Rejected):
            # It may have ended or left memory meanwhile; the story tells.
            continue
        text = why.reasons[0].text if why.reasons else ""
        if text and text != told and why.reasons[0].code not in ("backoff", "next"):
            told = text
            audience.waits(board, f"{board.label(position)} waits: {text}")
