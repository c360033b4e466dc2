"""The story of a schedule as a space-time diagram: time runs down, everyone has a column."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.testing.schedules.world import START_MS, Line

WIDTH = 30


def drawn(lines: Sequence[Line]) -> str:
    """The diagram, a line for each thing that happened; milliseconds from the start at the left."""
    columns = [
        "people",
        "server",
        *sorted({line.who for line in lines if line.who[0] == "w"} - {"world"}),
    ]
    rows = ["       ms  " + "".join(f"{name:<{WIDTH}}" for name in columns)]
    for line in lines:
        at = f"{line.at_ms - START_MS:>9,}  "
        if line.who not in columns:
            rows.append(f"{at}{'  ' + line.what + '  ':-^{WIDTH * len(columns)}}")
            continue
        cells = [line.what if name == line.who else "|" for name in columns]
        rows.append(at + "".join(f"{cell:<{WIDTH}}" for cell in cells).rstrip())
    return "\n".join(rows)
