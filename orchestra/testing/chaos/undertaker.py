"""
What is left of a farm whose owner was killed is ended and taken away by a process that outlives it.

Run as a program it waits for the end of its stdin, which only the owner holds open. The processes of a farm can not be left to end with
their owner: one that is frozen, such as the guardian of a worker's programs, sees nobody's death.

Only the smallest part of the standard library is imported, so that it is there before the first process of the farm.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

SMALL = "small"
"""The folder of a farm that may be a file system of its own."""

DONE = b"done"
"""Said by an owner that has left nothing behind."""

ROUNDS_MAX = 500
ROUND_S = 0.02
"""What is found is killed, and looked for again, until nothing is found: 10 s at most."""


class Alive(NamedTuple):
    """A process that lives."""

    pid: int
    words: str

    def __str__(self) -> str:
        return f"process {self.pid} is alive: {self.words}"


def living(marks: Iterable[str]) -> list[Alive]:
    """Processes with one of the marks in their environment (Linux); those that have ended and are not waited for do not count."""
    wanted = [mark.encode() for mark in marks]
    own = os.getpid()
    found: list[Alive] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            env = (entry / "environ").read_bytes()
            if any(mark in env for mark in wanted):
                words = (
                    (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
                found.append(Alive(int(entry.name), words.strip()))
        except OSError:
            continue  # it has ended meanwhile, or belongs to somebody else
    return found


def mark_of(folder: Path) -> str:
    """What is in the environment of every process of the farm in this folder."""
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]


def bury(folder: Path) -> None:
    """Kill every process of the farm in this folder, unmount what it mounted, and remove the folder."""
    marks = [mark_of(folder), f"{folder.resolve()}/"]
    for _ in range(ROUNDS_MAX):
        left = living(marks)
        if not left:
            break
        for each in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(each.pid, signal.SIGKILL)
        time.sleep(ROUND_S)
    umount = shutil.which("umount")
    if umount and (folder / SMALL).is_mount():
        words = [umount, "--lazy", str(folder / SMALL)]
        subprocess.run(words, check=False)  # noqa: S603 - umount itself, and our own folder
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def undertaken(folder: Path) -> Generator[None]:
    """While this is entered, the end of this process, however it comes, is the end of the farm in the folder."""
    words = [sys.executable, "-m", __name__, str(folder.resolve())]
    with subprocess.Popen(  # noqa: S603 - this very Python and this very module
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # what ends a terminal's processes is not for it
    ) as undertaker:
        try:
            yield
        finally:
            with suppress(BrokenPipeError):
                undertaker.communicate(DONE)


def main() -> None:
    """Wait for the end of the owner; nothing is done when it says that nothing is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read() != DONE:
        bury(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
