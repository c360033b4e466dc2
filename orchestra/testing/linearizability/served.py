"""A real server on one file, which is killed and started again on the same port."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from orchestra.compose import connect
from orchestra.errors import Unavailable
from orchestra.statemachine.queries import GetOverview
from orchestra.testing.free_port import free_port

START_S = 60.0
"""A start takes parts of a second; on a machine that is busy with other things it is waited for so long."""

LOOK_S = 0.02


class Server:
    """
    One ``orchestra serve`` at a time.

    Args:
        folder: Where its file and its last words are.
        words: What is run; the options that name file and address are added.
        settings: Variables of its environment beside those of this process.
    """

    def __init__(
        self,
        folder: Path,
        words: Sequence[str] = (sys.executable, "-m", "orchestra"),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self._words = words
        self._settings = dict(settings or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process. Raises `RuntimeError` when it has died."""
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the server died: {self._last_words()}")
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        words = [
            *self._words,
            "serve",
            "--data",
            str(self.folder / "served.db"),
            "--listen",
            f"127.0.0.1:{self.port}",
            "--local-worker",
            "0",
        ]
        with (self.folder / "served.log").open("ab") as talk:
            # Not awaited: it is killed from outside of any task.
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - this very Python and this very package
                words,
                stdin=subprocess.DEVNULL,
                stdout=talk,
                stderr=talk,
                env={**os.environ, **self._settings},
            )
        with anyio.fail_after(START_S):
            async with connect(self.url) as client:
                while True:
                    if self._process.poll() is not None:
                        raise RuntimeError(f"the server died: {self._last_words()}")
                    try:
                        await client.asker.answer(GetOverview())
                    except Unavailable:
                        await anyio.sleep(LOOK_S)
                    else:
                        return

    def kill(self) -> None:
        """As ``kill -9``; it is gone on return."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _last_words(self) -> str:
        return (self.folder / "served.log").read_text(errors="replace")[-2_000:]
