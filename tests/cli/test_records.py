"""Whatever a record of the log holds, it is one line that a terminal can be shown."""

from __future__ import annotations

import logging
import random
import subprocess
import sys

from orchestra.cli.records import OneLine

STRINGS = 5_000
PIECES = (
    "\n", "\r", "\r\n", "\x00", "\x1b[2J", "\x1b]0;title\x07", "\x85", "\u2028", "\u2029", "\u202e", "\x7f", "\x9b31m", "\t",
    "12:00:00 ERROR orchestra: forged", "%s", "%(message)s", "{}", "\ud800", "é", "日本", "a" * 200, "\\n", "\x08" * 5,
)  # fmt: skip


def drawn(chance: random.Random) -> str:
    noise = "".join(chr(chance.randrange(0x110000)) for _ in range(chance.randrange(6)))
    return noise + "".join(chance.choices(PIECES, k=chance.randrange(1, 8)))


def record(message: str, *, raised: bool) -> logging.LogRecord:
    error = ValueError(message) if raised else None
    found = (ValueError, error, None) if error is not None else None
    return logging.LogRecord("orchestra.x", 30, "f.py", 1, "told: %s", (message,), found)


def test_thousands_of_hostile_strings_are_one_line_each_without_a_control_byte() -> None:
    chance = random.Random(33)
    shown = OneLine()
    for number in range(STRINGS):
        line = shown.format(record(drawn(chance), raised=number % 50 == 0))
        written = line.encode("utf-8")  # a lone surrogate would raise
        assert not [byte for byte in written if byte < 0x20 or byte == 0x7F], line
        assert len(line.splitlines()) == 1, line
        assert "\x9b" not in line


def test_that_there_is_no_descriptor_left_is_told() -> None:
    script = (
        "import logging, os, resource\n"
        "from orchestra.cli.records import log_to_stderr\n"
        "log_to_stderr('info')\n"
        "least = os.open(os.devnull, os.O_RDONLY)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (least, least))\n"
        "try:\n"
        "    open(os.devnull)\n"
        "except OSError:\n"
        "    logging.getLogger('orchestra').exception('none left')\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    (line,) = told.stderr.splitlines()
    assert "none left" in line
    assert line.endswith("Too many open files: '/dev/null'")


def test_another_formatter_would_be_found_out() -> None:
    """The control: the same strings make more lines when nobody escapes them."""
    chance = random.Random(33)
    plain = logging.Formatter("%(message)s")
    lines = [plain.format(record(drawn(chance), raised=False)) for _ in range(100)]
    assert sum(len(line.splitlines()) > 1 for line in lines) > 10
