"""Functions for the engines' tests, in a module where another process finds them."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import anyio
import attrs

from orchestra.engines.context import Context


def blocks(seconds: float) -> None:
    threading.Event().wait(seconds)


@attrs.frozen
class Point:
    x: int
    y: float = 0.5


async def work(ctx: Context, what: str) -> str:
    """Whatever the conformance suite wants to see from a coroutine."""
    match what:
        case "failing":
            raise ValueError("it was always going to fail")
        case "lasting":
            await ctx.sleep(600)
        case "talking":
            for number in range(100):
                ctx.log(f"line {number}")
        case "deaf":
            await anyio.sleep(600)
    return "done"


def plain_work(ctx: Context, what: str) -> str:
    """The same from a plain function, and one that nothing but a KILL ends."""
    match what:
        case "failing":
            raise ValueError("it was always going to fail")
        case "lasting":
            ctx.wait(600)
        case "talking":
            for number in range(100):
                ctx.log(f"line {number}")
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ctx.log("ready")
            blocks(600)
    return "done"


def deaf_plain(seconds: float) -> None:
    blocks(seconds)


def moved(point: Point, by: int, *, scale: float = 1.0) -> Point:
    return Point(point.x + by, point.y * scale)


def tracked(ctx: Context, count: int) -> int:
    return sum(1 for _ in ctx.track(range(count), message="counting"))


def exits(code: int) -> None:
    os._exit(code)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def own_pid(ctx: Context) -> int:
    ctx.log("here")
    return os.getpid()


def forks(ctx: Context) -> None:
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        blocks(600)
    ctx.log(f"child {child}")
    blocks(600)


def tells(ctx: Context, item: list[int | str]) -> list[object]:
    ctx.log("first")
    ctx.progress(0.5, "half")
    ctx.log("second")
    ctx.progress(2.0, "done")
    return [ctx.task_id, ctx.attempt, ctx.item, ctx.stopping, item == ctx.item]


async def cancels_its_own() -> None:
    """Waits for something that it has cancelled itself."""
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def cancels_itself() -> None:
    """Cancels the task in which it runs, and waits."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()
    await asyncio.sleep(0)


def raises_cancelled() -> None:
    """As a plain function that waits for what another thread cancelled."""
    raise asyncio.CancelledError
