"""The story of a run as a space-time diagram: time runs down, everyone has a column."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

WIDTH = 30

FIRST = ("people", "server")
"""The columns at the left; the workers follow."""


@attrs.frozen(slots=True)
class Line:
    """One line of what happened: milliseconds from the start, in whose column, what."""

    at_ms: int
    who: str
    what: str


def drawn(lines: Sequence[Line]) -> str:
    """The diagram: a row for each thing that happened, with the milliseconds at the left. What is nobody's goes across."""
    workers = {line.who for line in lines} - {*FIRST, "world"}
    columns = [*FIRST, *sorted(workers, key=lambda name: (len(name), name))]
    rows = ["       ms  " + "".join(f"{name:<{WIDTH}}" for name in columns).rstrip()]
    for line in lines:
        at = f"{line.at_ms:>9,}  "
        what = line.what.partition("\n")[0]
        if line.who not in columns:
            rows.append(f"{at}{f'  {what}  ':-^{WIDTH * len(columns)}}")
            continue
        cells = [what if name == line.who else "|" for name in columns]
        rows.append((at + "".join(f"{cell:<{WIDTH - 1}} " for cell in cells)).rstrip())
    return "\n".join(rows)
