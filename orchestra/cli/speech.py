"""
What is said and how: data on stdout, talk on stderr.

Escape codes go to terminals only, and colours not at all with ``NO_COLOR``. Text that others sent (names, reasons, messages) has its
control characters escaped, so that it can not move the cursor or forge a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {
    "completed": "green",
    "ok": "green",
    "online": "green",
    "running": "cyan",
    "failed": "red",
    "broken": "red",
    "lost": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "backoff": "yellow",
    "paused": "yellow",
    "look": "yellow",
    "skipped": "dim",
    "waiting": "dim",
    "left": "dim",
    "replaced": "dim",
}
"""Colours of status words; a word without one is plain."""


def clean(text: str) -> str:
    """``text`` in one line, with everything that does not print escaped."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def clean_lines(text: str) -> str:
    """As `clean`, and line breaks stay."""
    return "\n".join(clean(line.expandtabs()) for line in text.splitlines())


def is_live(stream: IO[str] | None = None) -> bool:
    """Whether a person looks at the stream (stdout), on a terminal that can redraw."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM", "") not in ("", "dumb")


def console(stream: IO[str] | None = None) -> Console:
    """A terminal to draw on. It honours ``NO_COLOR``, and changes nothing of what it is given."""
    from rich.console import Console

    stream = sys.stdout if stream is None else stream
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)


def put(text: str) -> None:
    """One line or more of data."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def put_bytes(output: bytes) -> None:
    """Data that is not ours: written as it is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(output)
    sys.stdout.buffer.flush()


def put_json(found: object) -> None:
    """One JSON document: ``found`` in the native dialect's form of its class."""
    from orchestra.dialects.native_wire import codec_of

    cls: type[Any] = type(found)
    put(codec_of(cls, strict=False).encode(found).decode())


def put_plain_json(found: object) -> None:
    """One JSON document that is not the native dialect's."""
    import msgspec

    put(msgspec.json.encode(found).decode())


def say(text: str, style: str = "") -> None:
    """Talk: one line or more on stderr."""
    if style and is_live(sys.stderr):
        console(sys.stderr).print(text, style=style, overflow="ignore", no_wrap=True, crop=False)
        return
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def complain(message: str, *, where: str = "", remedy: str = "") -> None:
    """An error: what is wrong, where, and what to do about it."""
    place = f" ({clean(where)})" if where else ""
    first, *more = clean_lines(message).splitlines() or [""]
    _labelled("error:", "bold red", "\n       ".join([f"{first}{place}", *more]))
    if remedy:
        _labelled("help:", "bold cyan", clean(remedy))


def warn(message: str) -> None:
    """Something to look at that stops nothing."""
    _labelled("warning:", "bold yellow", clean(message))


def _labelled(label: str, style: str, text: str) -> None:
    if not is_live(sys.stderr):
        say(f"{label} {text}")
        return
    from rich.text import Text

    line = Text.assemble((label, style), " ", text)
    console(sys.stderr).print(line, overflow="ignore", no_wrap=True, crop=False)


def put_table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """
    A table: aligned columns, plain when piped.

    Args:
        heads: What the columns are called.
        rows: Cells as text. A cell that is a status word gets its colour on a terminal.
        right: Columns of numbers, aligned at their ends.
    """
    cells = [[clean(cell) for cell in row] for row in rows]
    if is_live():
        _put_drawn(heads, cells, right)
        return
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [list(heads), *cells]:
        padded = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        put("  ".join(padded).rstrip())


def _put_drawn(heads: Sequence[str], cells: list[list[str]], right: Sequence[int]) -> None:
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for place, head in enumerate(heads):
        last = place == len(heads) - 1
        drawn.add_column(
            head,
            justify="right" if place in right else "left",
            no_wrap=True,
            overflow="ellipsis",
            ratio=1 if last else None,
        )
    for row in cells:
        drawn.add_row(*(Text(cell, style=STYLES.get(cell.partition(" ")[0], "")) for cell in row))
    console().print(drawn)


def elapsed_text(ms: int | None) -> str:
    """A time as people say it: ``0.4s``, ``12.3s``, ``3m12s``, ``2h05m``, ``4d3h``; empty for None."""
    if ms is None:
        return ""
    seconds = max(ms, 0) / 1_000
    if seconds < 59.95:  # noqa: PLR2004 - what would be shown as 60.0s is a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s"
