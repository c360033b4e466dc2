"""
An engine's side of its guardian: starts it, speaks with it, and does its work when it is killed.

See `orchestra.engines.guardian` for what a guardian is.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from orchestra.engines.frames import Unpacker, packed
from orchestra.engines.kin import COOKIE, send, table

_CLOSE_S = 5.0
"""A guardian that has no wards leaves at once; one that does not is ended."""

_TAG_BITS = 40
"""Tags are drawn so large that two guardians on a machine do not meet."""


class Ward:
    """One program and its descendants, as the engine sees it. The events tell of its life in this order."""

    __slots__ = (
        "cookie",
        "gone",
        "id",
        "left",
        "peak_bytes",
        "pid",
        "refused",
        "status",
        "told",
        "why",
    )

    def __init__(self, id: int, cookie: str) -> None:
        self.id = id
        self.cookie = cookie
        self.told = anyio.Event()
        """It is started, or it never will be: then ``refused`` says why."""
        self.gone = anyio.Event()
        """Nothing of it is alive; set for a refused one too."""
        self.pid = 0
        self.refused = ""
        self.status: int | None = None
        """How the program itself ended, as `os.waitpid` tells it; None when that is not known."""
        self.why = ""
        """Who ended it: ``lease``, ``memory`` or ``guardian`` (it was killed itself); empty otherwise."""
        self.peak_bytes = 0
        self.left = 0
        """How many processes outlived the program and had to be ended."""


class Guard:
    """
    Starts programs through a guardian process.

    The guardian is started with the first program, and again after it was killed from outside; then everything that it
    watched over is ended first, found by cookie. Wards end with the engine's process, however that ends.

    Args:
        tasks: Where the conversation runs; cancelling it ends the conversation, and so all wards.
        mode: ``plain`` does without adoption and /proc, as on systems that have neither.
    """

    def __init__(self, tasks: TaskGroup, mode: str = "") -> None:
        self._tasks = tasks
        self._mode = mode
        self._nonce = secrets.token_hex(8)
        self._tag = secrets.randbits(_TAG_BITS) << 20
        self._count = 0
        self._wards: dict[int, Ward] = {}
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._until_s: float | None = None
        self._quiet = anyio.Event()

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process id; None while none runs."""
        return None if self._process is None else self._process.pid

    # ------------------------------------------------------------------------------------------------------ the verbs

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        folder: str,
        files: Mapping[int, int],
        memory_bytes: int = 0,
    ) -> Ward:
        """
        Start a program; returns at once, and `Ward.told` says when it runs.

        Args:
            files: Which of the caller's open files the program gets under which number; 0 to 2 are empty otherwise.
                They are taken over: closed here when they are sent.
            memory_bytes: The ward is ended when it uses more; 0 is no limit.

        Raises:
            OSError: The guardian can not be started.
            ValueError: Together the words are too long to send.
        """
        self._count += 1
        ward = Ward(self._count, f"{self._nonce}.{self._count}")
        words = {
            "do": "start",
            "ward": ward.id,
            "argv": list(argv),
            "env": {**env, COOKIE: ward.cookie},
            "folder": folder,
            "fds": list(files),
            "memory_bytes": memory_bytes,
            "tag": self._tag + self._count,
        }
        try:
            frame = packed(json.dumps(words).encode())
            if self._line is None:
                self._open()
        except BaseException:
            _close(files.values())
            raise
        self._wards[ward.id] = ward
        self._post(frame, tuple(files.values()))
        return ward

    def climb(self, ward: Ward, rung: str) -> None:
        """``asked``: TERM to the program; ``term``: TERM to the whole ward; ``kill``: KILL, until nothing is left."""
        if ward.id in self._wards:
            self._tell(do="climb", ward=ward.id, rung=rung)

    def extend(self, until_s: float) -> None:
        """The wards may live until ``time.monotonic() == until_s``, and longer only when this is called again."""
        self._until_s = until_s
        if self._line is not None:
            self._tell(do="lease", until_s=until_s)

    async def aclose(self) -> None:
        """End all wards and the guardian; returns when they are gone. Wards that can not be ended are given up after a while."""
        for ward in list(self._wards.values()):
            self.climb(ward, "kill")
        with anyio.move_on_after(_CLOSE_S):
            for ward in list(self._wards.values()):
                await ward.gone.wait()
        if self._line is not None:
            self._line.shutdown(socket.SHUT_WR)
            await self._quiet.wait()

    # ------------------------------------------------------------------------------------------------------- the wire

    def _open(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            outer = os.environ.get(COOKIE)  # inside another's ward the guardian belongs to it
            self._process = subprocess.Popen(  # noqa: S603 - argv is our own
                command(theirs.fileno(), self._mode),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={COOKIE: outer} if outer else {},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.setblocking(False)
        self._line = ours
        self._quiet = anyio.Event()
        if self._until_s is not None:
            self._tell(do="lease", until_s=self._until_s)
        self._tasks.start_soon(self._listen, ours, self._process)

    def _tell(self, **words: object) -> None:
        self._post(packed(json.dumps(words).encode()), ())

    def _post(self, frame: bytes, fds: tuple[int, ...]) -> None:
        self._unsent.append((frame, fds))
        if len(self._unsent) == 1 and not self._flush():
            self._tasks.start_soon(self._flush_later)

    def _flush(self) -> bool:
        """Send what the socket takes. False when something is left."""
        while self._unsent and self._line is not None:
            frame, fds = self._unsent[0]
            try:
                sent = socket.send_fds(self._line, [frame], fds) if fds else self._line.send(frame)
            except BlockingIOError:
                return False
            except OSError:
                break  # it is gone, and the listener sees to it
            _close(fds)
            if sent < len(frame):
                self._unsent[0] = (frame[sent:], ())
            else:
                self._unsent.popleft()
        for _, fds in self._unsent:
            _close(fds)
        self._unsent.clear()
        return True

    async def _flush_later(self) -> None:
        line = self._line
        while line is not None and not self._flush():
            try:
                await anyio.wait_writable(line)
            except (OSError, anyio.ClosedResourceError):
                return

    async def _listen(self, line: socket.socket, process: subprocess.Popen[bytes]) -> None:
        # Shielded: leaving the engine closes the line, and until then the end of each ward has to be heard.
        with anyio.CancelScope(shield=True):
            await self._converse(line)
            line.close()
            self._line = self._process = None
            for _, fds in self._unsent:
                _close(fds)
            self._unsent.clear()
            lost = list(self._wards.values())
            await _bury(process)
            if lost:
                await self._stand_in(lost)
        self._quiet.set()

    async def _converse(self, line: socket.socket) -> None:
        unpacker = Unpacker()
        while True:
            try:
                data = line.recv(262_144)
            except BlockingIOError:
                await anyio.wait_readable(line)
                continue
            except OSError:
                return
            if not data:
                return
            for payload in unpacker.feed(data):
                self._hear(json.loads(payload))

    def _hear(self, words: dict[str, int | str | None]) -> None:
        ward = self._wards.get(int(words["ward"] or 0))
        if ward is None:
            return
        match words["say"]:
            case "started":
                ward.pid = int(words["pid"] or 0)
                ward.told.set()
            case "refused":
                ward.refused = str(words["error"])
                self._over(ward)
            case "exited":
                ward.status = int(words["status"] or 0)
            case _:
                ward.why = str(words["why"])
                ward.peak_bytes = int(words["peak_bytes"] or 0)
                ward.left = int(words["left"] or 0)
                self._over(ward)

    def _over(self, ward: Ward) -> None:
        del self._wards[ward.id]
        ward.told.set()
        ward.gone.set()

    # ------------------------------------------------------------------------------------------------------ the worst

    async def _stand_in(self, lost: list[Ward]) -> None:
        """The guardian was killed: end what it watched over, then tell of it."""
        await anyio.to_thread.run_sync(end_cookies, frozenset(ward.cookie for ward in lost))
        for ward in lost:
            if not ward.told.is_set():
                ward.refused = "the process that was to start it was killed"
            ward.why = "guardian"
            self._over(ward)


async def _bury(process: subprocess.Popen[bytes]) -> None:
    """Take a guardian's exit status, so that no zombie stays."""
    with anyio.move_on_after(_CLOSE_S):
        while process.poll() is None:  # noqa: ASYNC110 - the exit of a process sets no event
            await anyio.sleep(0.002)  # its socket is closed, so it is on its way out
    if process.poll() is None:
        process.kill()
        process.wait()


def command(fd: int, mode: str = "") -> list[str]:
    """
    The argv of a guardian that speaks through the open file ``fd``.

    The package is stood in for by its folders, so that nothing else of it is imported: it serves after some 25 ms.
    """
    engines = Path(__file__).resolve().parent
    folders = {"orchestra": str(engines.parent), "orchestra.engines": str(engines)}
    code = (
        "import sys\n"
        f"for name, folder in {folders!r}.items():\n"
        "    sys.modules[name] = type(sys)(name)\n"
        "    sys.modules[name].__path__ = [folder]\n"
        "from orchestra.engines.guardian import main\n"
        f"main({fd}, {mode!r})\n"
    )
    return [sys.executable, "-I", "-S", "-c", code]


def end_cookies(cookies: frozenset[str]) -> int:
    """
    Kill every process that carries one of these cookies, and its descendants, until none is left; returns how many there were.

    Blocks. A process that replaced its environment and lost its parent before the guardian died is not found this way.
    """
    processes = table()
    met: set[tuple[int, int]] = set()
    while True:
        roots = [pid for pid, cookie in processes.cookies().items() if cookie in cookies]
        alive = processes.family(roots)
        if not alive:
            return len(met)
        met.update((seen.pid, seen.born) for seen in alive)
        for seen in alive:
            try:
                send(seen, signal.SIGKILL, processes)
            except PermissionError:
                return len(met)  # it changed its user: nothing more can be done from here
        time.sleep(0.01)


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
