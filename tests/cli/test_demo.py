"""The demonstration: a fixed list of troubles with a verdict where nobody looks, and a screen with keys where somebody does."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from orchestra.testing.chaos.undertaker import living
from tests.cli.kit import PROGRAM, ROOT, environment, plain

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

BOUND_S = 150.0
"""Seven processes start, and some of them again; this is for a machine that is busy with other things."""


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *words: str, folder: Path) -> None:
        self.drawn = ""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            env = environment(TMPDIR=str(folder), COLUMNS="110", LINES="34")
            os.execve(sys.executable, [*PROGRAM, *words], env)  # noqa: S606 - it is to have the terminal

    def until(self, wanted: str, since: int = 0) -> int:
        """Read on until this was drawn; where it ends."""
        end_s = time.monotonic() + BOUND_S
        while True:
            found = re.search(wanted, plain(self.drawn)[since:])
            if found:
                return since + found.end()
            left_s = end_s - time.monotonic()
            assert left_s > 0, f"{wanted} was not drawn: {plain(self.drawn)[-3_000:]}"
            if select.select([self._descriptor], [], [], left_s)[0]:
                self.drawn += os.read(self._descriptor, 65_536).decode(errors="replace")

    def press(self, key: str) -> None:
        os.write(self._descriptor, key.encode())

    def end(self) -> int:
        """Its exit code; it is killed when it does not end."""
        end_s = time.monotonic() + BOUND_S
        while select.select([self._descriptor], [], [], max(0.0, end_s - time.monotonic()))[0]:
            try:
                piece = os.read(self._descriptor, 65_536)
            except OSError:
                break  # Linux tells so that the other end is closed
            self.drawn += piece.decode(errors="replace")
        else:
            os.kill(self.pid, signal.SIGKILL)
        os.close(self._descriptor)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_every_trouble_is_played_and_judged_where_nobody_looks(tmp_path: Path) -> None:
    words = [*PROGRAM, "demo", "--chaos", "--tasks", "60"]
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        timeout=BOUND_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    for told in ("is killed", "is frozen", "is cut off", "disk is full", "the server is back"):
        assert told in done.stdout
    assert done.stdout.splitlines()[-1].endswith("nothing was lost and nothing ended twice")
    assert living([f"{tmp_path}/"]) == []


def test_a_key_kills_and_the_screen_shows_the_healing(tmp_path: Path) -> None:
    terminal = Terminal("demo", "--chaos", "--tasks", "300", folder=tmp_path)
    terminal.until("kill a worker")
    terminal.press("k")
    seen = terminal.until(r"worker-\d\s+killed")
    seen = terminal.until(r"runs elsewhere, after \d+\.\d s", seen)
    terminal.press("q")
    assert terminal.end() == 0, plain(terminal.drawn)[-2_000:]
    assert "nothing was lost and nothing ended twice" in plain(terminal.drawn)
    assert living([f"{tmp_path}/"]) == []
