"""What the demonstration looks like on a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from orchestra.cli import speech

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from orchestra.testing.chaos.show import Show

BAR_CHARS = 40
LINES_SHOWN = 8
RECOVERIES_SHOWN = 6

KEYS = (
    ("k", "kill a worker"),
    ("f", "freeze one"),
    ("c", "cut one off"),
    ("d", "fill the disk"),
    ("s", "kill the server"),
    ("q", "quit"),
)

STYLES = {
    "killed": "bold red",
    "frozen": "bold cyan",
    "cut off": "bold yellow",
    "back": "yellow",
    "its disk is full": "bold yellow",
    "serves": "green",
    "": "green",
}


class Screen:
    """The whole terminal, while it is entered."""

    def __init__(self, *, chaos: bool) -> None:
        from rich.live import Live

        self._keys = KEYS if chaos else KEYS[-1:]
        self._live = Live(console=speech.console(), auto_refresh=False, screen=True)

    def __enter__(self) -> Screen:
        self._live.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.__exit__(None, None, None)

    def draw(self, show: Show) -> None:
        """Draw what there is now."""
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = [
            _head(show),
            Text(""),
            _job(show),
            Text(""),
            _workers(show),
            Text(""),
            _counts(show),
            _recoveries(show),
            Text(""),
            *_lines(show),
            Text(""),
            self._help(),
        ]
        self._live.update(Group(*parts), refresh=True)

    def _help(self) -> Text:
        from rich.text import Text

        parts: list[tuple[str, str]] = []
        for key, told in self._keys:
            parts += [(f" {key} ", "reverse"), (f" {told}  ", "dim")]
        return Text.assemble(" ", *parts, no_wrap=True)


def _head(show: Show) -> Text:
    from rich.text import Text

    state = show.server_state
    answers = "does not answer" if show.sight.away else "answers"
    return Text.assemble(
        (" orchestra", "bold"),
        (f"  {speech.elapsed_text(round(show.elapsed_s * 1_000))}  ", "dim"),
        (f"{show.farm.url}  server ", "dim"),
        (state, STYLES.get(state, "")),
        (f", {answers}", "red" if show.sight.away else "dim"),
        no_wrap=True,
    )


def _job(show: Show) -> Text:
    from rich.text import Text

    job = show.sight.job
    if job is None:
        return Text(" ...", style="dim")
    done = job.counts.get("completed", 0)
    running = job.counts.get("running", 0)
    chars = done * BAR_CHARS // job.tasks
    busy = min(running, BAR_CHARS - chars)
    rest = ", ".join(
        f"{count} {status}"
        for status, count in job.counts.items()
        if count and status != "completed"
    )
    return Text.assemble(
        (f" {speech.clean(job.name)}  ", "bold"),
        ("━" * chars, "green"),
        ("╍" * busy, "cyan"),
        ("─" * (BAR_CHARS - chars - busy), "bright_black"),
        f"  {done}/{job.tasks}  ",
        (rest, "dim"),
        no_wrap=True,
    )


def _workers(show: Show) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 1))
    for head in ("WORKER", "IS", "THE SERVER SAYS", "HOLDS", "HEARD", "WORK DONE"):
        table.add_column(head, no_wrap=True)
    now_ms = time.time() * 1_000
    done = show.done_by()
    for name, state in sorted(show.state.items()):
        view = show.sight.workers.get(name)
        status = str(view.status) if view else "gone"
        heard = ""
        if view and view.seen_at_ms is not None:
            heard = f"{max(0.0, now_ms - view.seen_at_ms) / 1_000:.1f} s ago"
        table.add_row(
            Text(name),
            Text(state or "at work", style=STYLES.get(state, "")),
            Text(status, style=speech.STYLES.get(status, "red")),
            Text(str(view.held) if view else "0"),
            Text(heard, style="dim"),
            Text("▪" * min(done[name], BAR_CHARS // 2) + f" {done[name]}", style="dim"),
        )
    return table


def _counts(show: Show) -> Text:
    from rich.text import Text

    lost = show.lost
    return Text.assemble(
        (" tasks  ", "bold"),
        f"{show.acknowledged} acknowledged   {show.ended} seen to end   ",
        (f"{lost} lost", "bold red" if lost else "green"),
        "   ",
        (f"{show.doubled} ended twice", "bold red" if show.doubled else "green"),
        (f"   {show.busy} troubles not over" if show.busy else "", "yellow"),
        no_wrap=True,
    )


def _recoveries(show: Show) -> Text:
    from rich.text import Text

    took = [line.took_s for line in show.lines if line.took_s is not None]
    told = "  ".join(f"{each:.1f} s" for each in took[-RECOVERIES_SHOWN:]) or "none yet"
    most = f"   longest {max(took):.1f} s" if took else ""
    return Text.assemble((" work went on after  ", "bold"), told, (most, "dim"), no_wrap=True)


def _lines(show: Show) -> list[Text]:
    from rich.text import Text

    shown = show.lines[-LINES_SHOWN:]
    lines = [
        Text.assemble(
            (f" {line.at_s:7.1f}s  ", "dim"),
            (speech.clean(line.text), "green" if line.took_s is not None else ""),
            no_wrap=True,
        )
        for line in shown
    ]
    return lines + [Text("")] * (LINES_SHOWN - len(shown))
