"""A real uvicorn as a process of its own, started as its guide says, with one of the hosts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from queue import Queue

from tests.tidy import ROOT

BOUND_S = 60.0
"""Nothing that a test waits for takes so long, even on a machine that is busy with other things."""

LINES_MAX = 10_000


class Uvicorn:
    """
    The process, and what it says.

    Attributes:
        port: Where it listens.
        said: The lines that were read of it.
    """

    def __init__(self, host: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", f"tests.app.hosts:{host}", "--port", "0"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        self._lines: Queue[str | None] = Queue(LINES_MAX)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        found = re.search(r"running on http://127\.0\.0\.1:(\d+)", self.until("running on"))
        assert found is not None
        self.port = int(found[1])

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def until(self, words: str) -> str:
        """The next line with these words, waited for."""
        while (line := self._lines.get(timeout=BOUND_S)) is not None:
            self.said.append(line)
            if words in line:
                return line
        raise AssertionError(f"it ended without {words!r}: {''.join(self.said)}")

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def url(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self.port}"

    def shut(self) -> None:
        """Nothing is left of it on return."""
        self.process.kill()
        self.process.wait()
        self._reader.join(BOUND_S)
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextmanager
def uvicorn(host: str) -> Generator[Uvicorn]:
    """Serve a host of `tests.app.hosts` until the block ends."""
    server = Uvicorn(host)
    try:
        yield server
    finally:
        server.shut()
