"""Real processes: started, killed, frozen, thawed; marked in their environment, by which whatever is left of them is found."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import psutil

from orchestra.engines.kin import COOKIE as WARD

COOKIE = "ORCHESTRA_CHAOS"
"""
The environment variable by which everything that a process started, and that kept its environment, is found.

A worker's guardian keeps nothing but the mark of a ward that it runs in, so that is set as well.
"""

BOUND_S = 60.0
"""Nothing that is waited for takes so long, even on a machine that is busy with other things."""

LOOK_S = 0.02
"""Between two looks at what another process does."""

WORDS_BYTES = 3_000
"""Of what a process said last, so much is told when it died."""

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, OSError)


class Child:
    """
    One process.

    Args:
        name: What it is called in messages.
        words: Its command line.
        log: The file that its stderr is added to.
        env: What is added to our own environment.
        mark: What the cookies of all processes of a farm begin with.

    Attributes:
        cookie: Is in its environment, and in that of whatever it starts and hands its environment on to.
    """

    def __init__(
        self,
        name: str,
        words: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        mark: str = "",
    ) -> None:
        self.name = name
        self.cookie = mark + secrets.token_hex(8)
        self._log = log
        self._frozen: list[psutil.Process] = []
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ORCHESTRA_")}
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(  # noqa: S603 - this very Python and this very package
                words,
                env={**kept, **(env or {}), COOKIE: self.cookie, WARD: self.cookie},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # a Ctrl-C at the terminal is for whoever watches
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended, of its own accord or not."""
        return self.process.poll() is not None

    def last_words(self) -> str:
        """What it said last on stderr."""
        return self._log.read_text(errors="replace")[-WORDS_BYTES:]

    async def first_line(self) -> dict[str, Any]:
        """The first line of its stdout, which is JSON. Raises RuntimeError when it ends without one."""
        stdout = self.process.stdout
        if stdout is None:
            raise RuntimeError(f"{self.name} has no stdout")
        read = b""
        with anyio.fail_after(BOUND_S):
            while not read.endswith(b"\n"):
                await anyio.wait_readable(stdout.fileno())
                part = os.read(stdout.fileno(), 4_096)
                if not part:
                    raise RuntimeError(f"{self.name} died: {self.last_words()}")
                read += part
        return dict(json.loads(read))

    def kill(self) -> None:
        """As ``kill -9``; it is gone on return."""
        self.process.kill()
        self.process.wait()
        self._closed()

    async def end(self, patience_s: float = BOUND_S) -> int:
        """As ``kill``, and wait until it has ended; its exit code. Raises TimeoutError."""
        self.process.terminate()
        return await self.wait(patience_s)

    async def wait(self, patience_s: float = BOUND_S) -> int:
        """Wait until it has ended; its exit code. Raises TimeoutError."""
        with anyio.fail_after(patience_s):
            while True:
                code = self.process.poll()
                if code is not None:
                    self._closed()
                    return code
                await anyio.sleep(LOOK_S)

    def freeze(self, *, whole: bool = False) -> None:
        """As ``kill -STOP``: it alone, or ``whole`` with all its descendants."""
        found = [psutil.Process(self.pid)]
        if whole:
            found += found[0].children(recursive=True)
        for process in found:
            with contextlib.suppress(*_GONE):
                process.suspend()
                self._frozen.append(process)

    def thaw(self) -> None:
        """As ``kill -CONT``, for everything that was frozen."""
        for process in self._frozen:
            with contextlib.suppress(*_GONE):
                process.resume()
        self._frozen.clear()

    @property
    def is_frozen(self) -> bool:
        """Whether it was frozen and not thawed."""
        return bool(self._frozen)

    def _closed(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()
