"""Real processes of the command line, with every wait bounded."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

BOUND_S = 45.0
"""Far beyond what anything here takes on a busy machine; only a hang gets there."""

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "orchestra")
ESCAPE = "\x1b"


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    """Ours without what a developer set for orchestra."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ORCHESTRA_")}
    kept.pop("NO_COLOR", None)
    return kept | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "110"} | more


def orchestra(*words: str, cwd: Path | None = None, bound_s: float = BOUND_S, **more: str) -> Done:
    """Carry out a command to its end."""
    ended = subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        cwd=cwd,
        env=environment(**more),
        timeout=bound_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


@contextmanager
def running(*words: str, cwd: Path | None = None, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that goes on; it is gone when the context is left."""
    process = subprocess.Popen(
        [*PROGRAM, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=environment(**more),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.communicate(timeout=BOUND_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.communicate(timeout=BOUND_S)


def line_with(process: subprocess.Popen[bytes], wanted: str, stream: str = "stdout") -> str:
    """The first line of output that has ``wanted`` in it."""
    pipe = getattr(process, stream)
    seen = b""
    until = time.monotonic() + BOUND_S
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise AssertionError(f"no line with {wanted!r}: {seen!r}")
        piece = os.read(pipe.fileno(), 65_536)
        seen += piece
        for line in seen.decode(errors="replace").splitlines(keepends=True):
            if wanted in line and line.endswith("\n"):
                return line
        if not piece:
            raise AssertionError(f"it ended without a line with {wanted!r}: {seen!r}")


def on_terminal(
    *words: str,
    cwd: Path | None = None,
    looks: Callable[[str], object] = bool,
    **more: str,
) -> tuple[int, str]:
    """
    Carry out a command that believes to have a terminal; its exit code and everything it drew.

    Args:
        looks: Is shown what was drawn so far, each time that something is added to it.
    """
    process, descriptor = pty.fork()
    if process == 0:
        os.chdir(cwd or ROOT)
        os.execve(sys.executable, [*PROGRAM, *words], environment(**more))  # noqa: S606 - it is to have the terminal
    drawn = b""
    until_s = time.monotonic() + BOUND_S
    try:
        while select.select([descriptor], [], [], max(0, until_s - time.monotonic()))[0]:
            try:
                piece = os.read(descriptor, 65_536)
            except OSError:
                break  # Linux tells so that the other end is closed
            if not piece:
                break
            drawn += piece
            looks(drawn.decode(errors="replace"))
        else:
            os.kill(process, signal.SIGKILL)
    finally:
        _, status = os.waitpid(process, 0)
        os.close(descriptor)
    return os.waitstatus_to_exitcode(status), drawn.decode(errors="replace")


def plain(drawn: str) -> str:
    """What was drawn, without escape codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
