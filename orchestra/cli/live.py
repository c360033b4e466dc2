"""Two audiences of a job: lines for programs and logs, and a display that redraws itself on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from orchestra.cli import speech
from orchestra.cli.board import Board, Change, Running, StageTally
from orchestra.statemachine.lifecycles import TaskStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

SHOWN_RUNNING = 8
SHOWN_STAGES = 20
"""Together with the messages above it stays within a terminal of 40 lines."""

BAR_CHARS = 32
WORTH_A_LINE = frozenset({"failed", "backoff", "lost", "cancelled", "cancelling", "skipped"})
"""Changes that stay on the terminal above the display; the rest is to be seen in it."""

SKIPPED_LINES = 3


class Lines:
    """One line for each change: time since the job's submission, what, how. ``put`` is where lines go."""

    def __init__(self, put: Any = speech.put) -> None:
        self._put = put

    def opened(self, board: Board) -> None:
        view = board.view
        if view is not None:
            stages = ", ".join(f"{s.name} {s.size}" for s in board.stages[:SHOWN_STAGES])
            self._line(board, view.submitted_at_ms, f"job {view.number}", view.name, stages)

    def changed(self, board: Board, change: Change) -> None:
        self._line(board, change.at_ms, change.label, change.status, change.text)

    def ticked(self, board: Board) -> None:
        """Lines tell changes only."""

    def waits(self, board: Board, text: str) -> None:
        if not board.ended:
            speech.say(speech.clean(text))

    def lost(self, text: str) -> None:
        speech.warn(f"{text}; trying again")

    def _line(self, board: Board, at_ms: int, label: str, status: str, text: str) -> None:
        since = 0 if board.view is None else board.view.submitted_at_ms
        told = f"{(at_ms - since) / 1_000:8.2f}s  {label}  {status}  {text}"
        self._put(speech.clean(told.rstrip()))


class Silent:
    """Tells nothing but that the server is away."""

    def opened(self, board: Board) -> None: ...

    def changed(self, board: Board, change: Change) -> None: ...

    def ticked(self, board: Board) -> None: ...

    def waits(self, board: Board, text: str) -> None: ...

    def lost(self, text: str) -> None:
        speech.warn(f"{text}; trying again")


class Display:
    """A line for each stage with its bar, and below it what runs. To be entered; what is left at the end stays."""

    def __init__(self) -> None:
        from rich.live import Live

        self._console: Console = speech.console()
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._skew_ms = 0
        self._waits = ""
        self._skipped = 0

    def __enter__(self) -> Display:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def opened(self, board: Board) -> None:
        self._draw(board)

    def changed(self, board: Board, change: Change) -> None:
        # The server's clock may differ from ours; how long something runs is told by its clock.
        self._skew_ms = int(time.time() * 1_000) - change.at_ms
        self._waits = ""
        if change.position and change.status in WORTH_A_LINE:
            self._keep(change)
        elif not change.position:
            self._draw(board)

    def ticked(self, board: Board) -> None:
        self._draw(board)

    def waits(self, board: Board, text: str) -> None:
        self._waits = text
        self._draw(board)

    def lost(self, text: str) -> None:
        self._waits = f"{text}; trying again"

    def _keep(self, change: Change) -> None:
        from rich.text import Text

        if change.status == "skipped":
            self._skipped += 1
            if self._skipped > SKIPPED_LINES:
                return
        told = Text.assemble(
            (f" {speech.clean(change.label)} ", "bold"),
            (change.status, speech.STYLES.get(change.status, "")),
            (f" {speech.clean(change.text)}", "dim"),
        )
        self._live.console.print(told, overflow="ellipsis", no_wrap=True)

    def _draw(self, board: Board) -> None:
        self._live.update(self._drawn(board), refresh=True)

    def _drawn(self, board: Board) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        now_ms = int(time.time() * 1_000) - self._skew_ms
        parts: list[RenderableType] = [_head(board, now_ms), _stages(board)]
        if not board.ended and board.running:
            parts.append(_running(board, now_ms))
        if self._waits and not board.ended:
            parts.append(Text(f" {speech.clean(self._waits)}", style="yellow", no_wrap=True))
        return Group(*parts)


def _head(board: Board, now_ms: int) -> Text:
    from rich.text import Text

    view = board.view
    if view is None:
        return Text("")
    took = (view.ended_at_ms or now_ms) - view.submitted_at_ms
    retried = f"  {board.retries} retried" if board.retries else ""
    return Text.assemble(
        (f" {speech.clean(view.name)}", "bold"),
        (f"  job {view.number}  ", "dim"),
        (board.status, speech.STYLES.get(board.status, "")),
        (f"  {speech.elapsed_text(took)}{retried}", "dim"),
        no_wrap=True,
    )


def _stages(board: Board) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify, no_wrap=True)
    for stage in _worth_showing(board.stages):
        total = f"{stage.ended}/{stage.size}"
        table.add_row(
            Text(f" {speech.clean(stage.name)[:24]}"), _bar(stage), Text(total), _rest(stage)
        )
    hidden = len(board.stages) - SHOWN_STAGES
    if hidden > 0:
        table.add_row(Text(f" and {hidden} more", style="dim"), Text(""), Text(""), Text(""))
    return table


def _worth_showing(stages: list[StageTally]) -> list[StageTally]:
    if len(stages) <= SHOWN_STAGES:
        return stages
    # What has work in hand first, then what comes next, then what is done.
    rank = {False: 0, True: 1}
    chosen = sorted(
        stages, key=lambda s: (rank[s.ended == s.size], -s.counts[TaskStatus.RUNNING], s.first)
    )
    return sorted(chosen[:SHOWN_STAGES], key=lambda s: s.first)


def _bar(stage: StageTally) -> Text:
    from rich.text import Text

    parts = [
        (stage.counts[TaskStatus.COMPLETED], "green"),
        (stage.counts[TaskStatus.FAILED], "red"),
        (stage.counts[TaskStatus.CANCELLED], "yellow"),
        (stage.counts[TaskStatus.SKIPPED], "bright_black"),
        (stage.counts[TaskStatus.RUNNING], "cyan"),
    ]
    bar = Text()
    done = 0
    for count, style in parts:
        start, done = done, done + count
        chars = done * BAR_CHARS // stage.size - start * BAR_CHARS // stage.size
        bar.append(("╍" if style == "cyan" else "━") * chars, style=style)
    bar.append("─" * (BAR_CHARS - len(bar)), style="bright_black")
    return bar


def _rest(stage: StageTally) -> Text:
    from rich.text import Text

    told = [
        (stage.counts[TaskStatus.RUNNING], "running", "cyan"),
        (stage.counts[TaskStatus.BACKOFF], "tries again", "yellow"),
        (stage.counts[TaskStatus.FAILED], "failed", "red"),
        (stage.counts[TaskStatus.SKIPPED], "skipped", "dim"),
        (stage.counts[TaskStatus.CANCELLED], "cancelled", "yellow"),
    ]
    text = Text()
    for count, word, style in told:
        if count:
            text.append(f"{count} {word}  ", style=style)
    return text


def _running(board: Board, now_ms: int) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="ellipsis")
    # By position, so that lines keep their places.
    shown = sorted(board.running.values(), key=lambda running: running.position)[:SHOWN_RUNNING]
    for running in shown:
        label = speech.clean(board.label(running.position))
        since = now_ms - running.since_ms if running.since_ms else None
        told = _progress_text(running)
        table.add_row(
            Text(f"   {label}", style="dim"),
            Text(speech.elapsed_text(since), style="dim"),
            Text(told),
        )
    hidden = len(board.running) - SHOWN_RUNNING
    if hidden > 0:
        table.add_row(Text(f"   and {hidden} more", style="dim"), Text(""), Text(""))
    return table


def _progress_text(running: Running) -> str:
    if running.fraction is None:
        return ""
    return f"{running.fraction:4.0%} {speech.clean(running.message)}".rstrip()
