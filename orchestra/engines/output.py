"""Reads what a program writes, as it comes, and finds the lines by which it tells how far it is."""

from __future__ import annotations

import math
import os

import anyio

from orchestra.ports import AttemptSink

READ_BYTES = 65_536
"""The size of a pipe on Linux: one read empties it."""

TAIL_BYTES = 600
"""The last words of a program that failed are put into the message about it."""

_MARK = b"::progress "
_LINE_BYTES_MAX = 1_024
"""Longer lines tell no progress."""


class ProgressLines:
    """Finds ``::progress 0.42 message`` lines in a stream that is cut anywhere."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> tuple[float, str] | None:
        """The last progress that ``data`` completes; None without one."""
        text = self._held + data
        cut = text.rfind(b"\n") + 1
        rest = text[cut:]
        # A byte that starts no mark stands for the beginning of a line that is too long.
        self._held = rest if len(rest) <= _LINE_BYTES_MAX else b"\0"
        if _MARK not in text:
            return None
        for line in reversed(text[:cut].splitlines()):
            if line.startswith(_MARK) and len(line) <= _LINE_BYTES_MAX:
                told = _parsed(line)
                if told is not None:
                    return told
        return None


def _parsed(line: bytes) -> tuple[float, str] | None:
    number, _, message = line[len(_MARK) :].decode(errors="replace").strip().partition(" ")
    try:
        fraction = float(number)
    except ValueError:
        return None
    if math.isnan(fraction):
        return None
    return min(1.0, max(0.0, fraction)), message.strip()


class Reader:
    """
    Hands one stream of an attempt to its sink, in order and with the sink's back-pressure.

    Args:
        fd: The reading end of a pipe; closed when `run` returns.
        progress: Look for progress lines.
    """

    def __init__(
        self, fd: int, attempt_id: str, stream: str, sink: AttemptSink, *, progress: bool
    ) -> None:
        os.set_blocking(fd, False)
        self.tail = b""
        self._fd = fd
        self._id = attempt_id
        self._stream = stream
        self._sink = sink
        self._lines = ProgressLines() if progress else None
        self._last = False
        self._waiting = anyio.CancelScope()

    async def run(self) -> None:
        """Read until all writers closed the pipe, or until `finish` was called and the pipe is empty."""
        try:
            while True:
                try:
                    data = os.read(self._fd, READ_BYTES)
                except BlockingIOError:
                    if self._last:
                        return
                    with anyio.CancelScope() as self._waiting:
                        await anyio.wait_readable(self._fd)
                    continue
                if not data:
                    return
                await self._tell(data)
        finally:
            os.close(self._fd)

    def finish(self) -> None:
        """No process of the attempt is alive: what is in the pipe is all. A stranger that holds it open is not waited for."""
        self._last = True
        self._waiting.cancel()

    async def _tell(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        await self._sink.output(self._id, self._stream, data)
        told = None if self._lines is None else self._lines.feed(data)
        if told is not None:
            await self._sink.progress(self._id, *told)
