"""``demo``: a server and five workers as real processes, to look at while they are killed, frozen, cut off and starved."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.errors import Malformed
from orchestra.statemachine.counting import counted

if TYPE_CHECKING:
    from orchestra.cli.demo_screen import Screen
    from orchestra.testing.chaos.show import Line, Show

TASKS_MAX = 100_000

DRAW_S = 0.15
"""How often the screen is drawn anew: often enough to look alive."""

KEYS_BYTES = 64
"""More than anybody presses at once."""

QUIT = "q"


def demo(
    *,
    chaos: Annotated[
        bool, Parameter(help="Troubles: by keys on a terminal, else a fixed list of them.")
    ] = False,
    tasks: Annotated[int, Parameter(help="Of the job that runs, half a second each.")] = 150,
    seed: Annotated[int, Parameter(help="Draws which worker is struck.")] = 1,
) -> int:
    """
    Show a server and five workers at work, and with --chaos how they heal.

    All are real processes, gone at the end. On a terminal keys kill (k), freeze (f) and cut off (c) a worker, fill the disk (d), kill the \
server (s), and quit (q). Elsewhere the troubles come by themselves, each change is a line, and the exit code tells whether anything was \
lost or doubled.
    """
    if not 1 <= tasks <= TASKS_MAX:
        raise Malformed(f"must be from 1 to {TASKS_MAX}, not {tasks}", where="--tasks")
    live = speech.is_live() and sys.stdin.isatty()
    with tempfile.TemporaryDirectory(prefix="orchestra-demo-", ignore_cleanup_errors=True) as name:
        play = _on_screen if live else _in_lines
        broken = anyio.run(partial(play, Path(name), tasks, seed, chaos=chaos))
    for each in broken:
        speech.warn(each)
    return exits.FAILED if broken else exits.OK


def _line(line: Line) -> None:
    speech.put(speech.clean(f"{line.at_s:8.2f}s  {line.text}"))


async def _in_lines(folder: Path, tasks: int, seed: int, *, chaos: bool) -> list[str]:
    """Without a terminal: every trouble once, one after the other, and then to the end."""
    from orchestra.testing.chaos.show import TROUBLES, open_show

    async with open_show(folder, tasks, seed, _line) as show:
        if chaos:
            for trouble in TROUBLES.values():
                await show.do(trouble)
        await show.job_ended()
        broken = await show.verdict(whole=True)
        _tell_verdict(show, broken)
        return broken


def _tell_verdict(show: Show, broken: list[str]) -> None:
    took = [f"{line.took_s:.1f}" for line in show.lines if line.took_s is not None]
    if took:
        speech.put(f"work went on after {', '.join(took)} s")
    counts = f"{counted(show.acknowledged, 'task')} acknowledged, {show.ended} ended, {show.doubled} ended twice"
    told = (
        f"{counted(len(broken), 'law')} broken"
        if broken
        else "nothing was lost and nothing ended twice"
    )
    speech.put(f"{counts}: {told}")


async def _on_screen(folder: Path, tasks: int, seed: int, *, chaos: bool) -> list[str]:
    """On a terminal: until somebody quits."""
    from orchestra.cli.demo_screen import Screen
    from orchestra.testing.chaos.show import open_show

    speech.put("starting a server and five workers ...")
    async with open_show(folder, tasks, seed, _line) as show:
        show.quiet()
        with Screen(chaos=chaos) as screen, _keys() as keys:
            await _until_quit(show, screen, keys, chaos=chaos)
        speech.put("looking at what was stored ...")
        broken = await show.verdict(whole=False)
        _tell_verdict(show, broken)
        return broken


async def _until_quit(show: Show, screen: Screen, keys: int, *, chaos: bool) -> None:
    from orchestra.testing.chaos.show import TROUBLES

    async with anyio.create_task_group() as group:
        group.start_soon(show.go_on)
        group.start_soon(_draw, show, screen)
        while True:
            await anyio.wait_readable(keys)
            for key in os.read(keys, KEYS_BYTES).decode(errors="replace").lower():
                if key == QUIT:
                    group.cancel_scope.cancel()
                    return
                if chaos and key in TROUBLES:
                    group.start_soon(show.do, TROUBLES[key])


async def _draw(show: Show, screen: Screen) -> None:
    while True:
        screen.draw(show)
        await anyio.sleep(DRAW_S)


@contextmanager
def _keys() -> Generator[int]:
    """The descriptor of the terminal's keys, each told as it is pressed; the terminal is as it was afterwards."""
    import termios
    import tty

    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)
    tty.setcbreak(keys)
    try:
        yield keys
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
