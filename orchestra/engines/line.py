"""
A guardian's end of the socket to its engine: frames of JSON in both directions, and open files that ride along with them.

Only the smallest part of the standard library is imported, because the guardian starts with it in a few milliseconds.
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
from typing import Any

from orchestra.engines.frames import Unpacker, packed

FDS_MAX = 253
"""Files in one message: the kernel's SCM_MAX_FD."""

_READ_BYTES = 262_144


class Line:
    """
    Frames to and from the engine. Nothing here blocks: a frozen engine reads nothing, and its wards have to be ended all the same.

    Args:
        end: One end of a socket pair; taken over.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        end.set_inheritable(
            False
        )  # a program that held it could speak for the guardian, and hide its death
        self._end = end
        self._fds: list[int] = []
        self._unpacker = Unpacker()
        self._unsent = bytearray()

    def fileno(self) -> int:
        """For `select.poll`."""
        return self._end.fileno()

    @property
    def wanted(self) -> int:
        """What to wait for, in the words of `select.poll`."""
        return select.POLLIN | (select.POLLOUT if self._unsent else 0)

    def close(self) -> None:
        """Nobody is there any more."""
        self._end.close()
        self._unsent.clear()

    def receive(self) -> list[dict[str, Any]] | None:
        """What came, perhaps nothing yet; None when the engine is gone."""
        try:
            data, ancillary, flags, _ = self._end.recvmsg(
                _READ_BYTES, socket.CMSG_SPACE(4 * FDS_MAX)
            )
        except BlockingIOError:
            return []
        except OSError:
            return None
        if flags & socket.MSG_CTRUNC:
            # Files were lost for want of room, and which belong to whom is unknown: the engine starts a new guardian.
            raise SystemExit("the guardian ran out of file numbers")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds += [_private(fd) for fd in fds]
        return [json.loads(payload) for payload in self._unpacker.feed(data)] if data else None

    def files(self, count: int) -> list[int]:
        """The next files that came along; the caller closes them."""
        taken, self._fds = self._fds[:count], self._fds[count:]
        return taken

    def say(self, **words: object) -> None:
        """Send a frame, now or when there is room."""
        self._unsent += packed(json.dumps(words).encode())
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes."""
        try:
            while self._unsent:
                del self._unsent[: self._end.send(self._unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()


def _private(fd: int) -> int:
    os.set_inheritable(fd, False)
    return fd
