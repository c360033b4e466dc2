"""
The command line: ``python -m orchestra`` and the script ``orchestra``.

stdout is data, stderr is talk. Exit codes are in `orchestra.cli.exits`.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(words: Sequence[str] | None = None) -> None:
    """Carry out one command; ``words`` are those after the program's name. Always raises SystemExit."""
    from orchestra.cli.entry import carry_out

    raise SystemExit(carry_out(words))
