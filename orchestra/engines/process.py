"""
The process engine: one program for each attempt, in a directory of its own, with a clean environment, ended to the last descendant.

A program gets no shell, no standard input (unless the template gives one), and an environment made from nothing:
``PATH`` (the folder of the worker's Python, then the system's), ``HOME`` and ``TMPDIR`` (its working directory), ``LANG=C.UTF-8``,
``ORCHESTRA_TASK``, ``ORCHESTRA_ATTEMPT``, ``ORCHESTRA_ATTEMPT_NUMBER``, ``ORCHESTRA_SHARED``, what the template adds, and a cookie.

It completes when it exits with 0. Its result is the file ``result.json`` in its working directory, else ``{"exit_code":0}``. A
line ``::progress 0.42 message`` on its standard output tells how far it is. See `orchestra.engines.argv` for the template.

The ladder of a stop: ``asked`` is SIGTERM to the program itself, ``term`` SIGTERM to all of its descendants too, ``kill`` SIGKILL to all
until none is left. What outlives a program that ended by itself is ended in the same way before the end is told.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections import deque
from pathlib import Path

import anyio
import attrs
from anyio.abc import TaskGroup

from orchestra.engines import outcomes
from orchestra.engines.argv import Blanks, read_template
from orchestra.engines.guard import Guard, Ward
from orchestra.engines.output import Reader
from orchestra.engines.roster import Roster
from orchestra.engines.shared_folders import SharedFolders
from orchestra.errors import EngineFailed, Malformed, ensure
from orchestra.ports import AttemptSink, Ended
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order
from orchestra.statemachine.values import value

KEPT_FOLDERS_MAX = 100
"""Working directories of failed attempts that are kept to look at; the oldest goes first."""

PLACES_MAX = 1_000
"""Engines on one folder: one for each local worker."""

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

_SAFE = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")


@attrs.define(slots=True, eq=False)
class _Held:
    """An attempt that runs here. ``rung`` is set when a stop was asked for before the program ended."""

    order: Order
    sink: AttemptSink
    ward: Ward | None = None
    rung: str = ""
    timed_out: bool = False


@value
class _Launch:
    """``shared`` is the name of the job's folder in `SharedFolders`; empty if the template names another."""

    argv: tuple[str, ...]
    env: dict[str, str]
    folder: str
    shared: str
    stdin: str | None
    memory_bytes: int


class ProcessEngine:
    """
    Runs programs.

    Args:
        folder: Where attempts get their working directories; made if absent. Several engines may have the same: each takes a
            numbered place in it (``folder/1``), and ``folder/shared`` is for all. There a job has a folder while an attempt of it
            runs, and afterwards if there is something in it.
        guardian_mode: ``plain`` does without orphan adoption and /proc, as on systems that have neither.

    Raises:
        EngineFailed: On entering: the folder can not be written, or too many engines use it.
    """

    def __init__(self, folder: str | os.PathLike[str], *, guardian_mode: str = "") -> None:
        self.apps: tuple[str, ...] = ("process",)
        self._folder = Path(folder).absolute()
        self._mode = guardian_mode
        self._roster: Roster[_Held] = Roster()
        self._tasks: TaskGroup | None = None
        self._guard: Guard | None = None
        self.place = self._folder
        self._lock = -1
        self._failed: deque[str] = deque()
        self._shared = SharedFolders(str(self._folder / "shared"))

    @property
    def guardian_pid(self) -> int | None:
        """The guardian's process id; None before the first attempt and while a killed one is replaced."""
        return None if self._guard is None else self._guard.guardian_pid

    async def __aenter__(self) -> ProcessEngine:
        ensure(self._tasks is None, "an engine is entered once at a time")
        await anyio.to_thread.run_sync(self._take_place)
        self._tasks = await anyio.create_task_group().__aenter__()
        self._guard = Guard(self._tasks, self._mode)
        return self

    async def __aexit__(self, *exc: object) -> None:
        tasks, guard = self._tasks, self._guard
        if tasks is None or guard is None:
            return
        self._tasks = None  # whatever is started from now on is refused
        with anyio.CancelScope(shield=True):
            for held in self._roster.live():
                held.rung = held.rung or "kill"
            await guard.aclose()
        await tasks.__aexit__(None, None, None)  # waits until the last end is told
        self._guard = None
        os.close(self._lock)

    async def start(self, order: Order, sink: AttemptSink) -> None:
        """As `ports.Engine.start`."""
        if order.attempt_id in self._roster:
            return
        tasks, guard = self._tasks, self._guard
        if tasks is None or guard is None:
            message = "the engine is not open"
            ended = Ended("failed", cause=Cause.UNSTARTABLE, message=message)
            await sink.ended(order.attempt_id, ended)
            return
        held = _Held(order, sink)
        self._roster.add(order.attempt_id, held)
        tasks.start_soon(self._run, held, guard)

    async def stop(self, attempt_id: str, rung: str) -> None:
        """As `ports.Engine.stop`."""
        held = self._roster.find(attempt_id)
        if held is None or self._guard is None:
            return
        if held.ward is None or held.ward.status is None:
            held.rung = rung
        if held.ward is not None:
            self._guard.climb(held.ward, rung)

    async def query(self) -> tuple[str, ...]:
        """As `ports.Engine.query`."""
        return self._roster.ids()

    def extend(self, until_s: float) -> None:
        """As `ports.Engine.extend`. After a lease has passed nothing starts until it is renewed."""
        if self._guard is not None:
            self._guard.extend(until_s)

    # ---------------------------------------------------------------------------------------------------- one attempt

    async def _run(self, held: _Held, guard: Guard) -> None:
        # Shielded: an attempt ends because its processes did, never because somebody waits no longer.
        with anyio.CancelScope(shield=True):
            ended = await self._outcome(held, guard)
            self._roster.end(held.order.attempt_id)
            await held.sink.ended(held.order.attempt_id, ended)

    async def _outcome(self, held: _Held, guard: Guard) -> Ended:
        try:
            launch = self._prepared(held.order)
        except (Malformed, OSError, ValueError) as problem:
            # A ValueError is how Python refuses what the system could not even be asked.
            message = outcomes.bounded(str(problem))
            return Ended("failed", cause=Cause.UNSTARTABLE, message=message)
        ended = Ended("stopped", cause=Cause.CANCELLED, message="stopped before it began")
        if not held.rung:
            ended = await self._run_program(held, guard, launch)
        await self._put_away(launch.folder, ended)
        self._shared.leave(launch.shared)
        return ended

    async def _run_program(self, held: _Held, guard: Guard, launch: _Launch) -> Ended:
        order, sink = held.order, held.sink
        files, out, err = _opened(launch.stdin)
        try:
            ward = guard.spawn(launch.argv, launch.env, launch.folder, files, launch.memory_bytes)
        except (OSError, ValueError) as problem:
            os.close(out)
            os.close(err)
            message = outcomes.bounded(f"its guardian could not start it: {problem}")
            return Ended("failed", cause=Cause.UNSTARTABLE, message=message)
        held.ward = ward
        await ward.told.wait()
        stdout = Reader(out, order.attempt_id, "stdout", sink, progress=True)
        stderr = Reader(err, order.attempt_id, "stderr", sink, progress=False)
        if not ward.refused:
            await sink.running(order.attempt_id)
        async with anyio.create_task_group() as readers:
            readers.start_soon(stdout.run)
            readers.start_soon(stderr.run)
            if order.run_ms_max is not None:
                await self._limit_time(held, guard, ward, order.run_ms_max)
            await ward.gone.wait()
            stdout.finish()
            stderr.finish()
        return _judged(held, ward, launch, stderr.tail or stdout.tail)

    async def _limit_time(self, held: _Held, guard: Guard, ward: Ward, run_ms_max: int) -> None:
        with anyio.move_on_after(run_ms_max / 1000):
            await ward.gone.wait()
        if ward.gone.is_set() or ward.status is not None:
            return
        held.timed_out = not held.rung
        guard.climb(ward, "term")
        with anyio.move_on_after(held.order.grace_ms / 1000):
            await ward.gone.wait()
        guard.climb(ward, "kill")

    # ---------------------------------------------------------------------------------------------- folders and words

    def _prepared(self, order: Order) -> _Launch:
        """Everything that a program is started with. Raises Malformed and OSError."""
        template = read_template(order.template)
        # Words of a Path are interned: ids that are remembered would stay in a table of the interpreter, which is built anew
        # again and again, and the memory of a worker would grow in steps of two MiB.
        folder = f"{self.place}/{_safe(order.attempt_id)}"
        name = "" if template.folder else _safe(order.job_id)
        shared = template.folder or self._shared.path(name)
        blanks = Blanks(order, folder, shared)
        argv = tuple(
            blanks.filled(word, f"argv[{index}]") for index, word in enumerate(template.argv)
        )
        added = {name: blanks.filled(value, f"env.{name}") for name, value in template.env.items()}
        stdin = None if template.stdin is None else blanks.filled(template.stdin, "stdin")
        limits = [template.memory_bytes or 0, dict(order.needs).get("memory", 0) // 1000]
        os.mkdir(folder, 0o700)
        if name:
            self._shared.use(name)
        else:
            Path(shared).mkdir(parents=True, exist_ok=True)
        taken = {name: os.environ[name] for name in template.inherit if name in os.environ}
        env = {**_clean(order, folder, shared), **taken, **added}
        return _Launch(argv, env, folder, name, stdin, min(filter(None, limits), default=0))

    def _take_place(self) -> None:
        """Take the first numbered place that no other engine has; the lock goes with the process, however it ends."""
        try:
            self._shared.sweep()
            for number in range(1, PLACES_MAX + 1):
                self.place = self._folder / str(number)
                self.place.mkdir(mode=0o700, exist_ok=True)
                self._lock = os.open(self.place, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(self._lock)
                    continue
                self._find_leftovers()
                return
        except OSError as problem:
            raise EngineFailed(f"{self._folder} can not be used: {problem.strerror}") from problem
        raise EngineFailed(f"{PLACES_MAX} engines use {self._folder}; give this one another folder")

    def _find_leftovers(self) -> None:
        # What an earlier process left is kept as the failures are that it did not get to tell.
        left = sorted(self.place.iterdir(), key=lambda path: path.lstat().st_mtime)
        self._failed = deque(map(str, left[-KEPT_FOLDERS_MAX:]))
        for folder in left[:-KEPT_FOLDERS_MAX]:
            shutil.rmtree(folder, ignore_errors=True)

    async def _put_away(self, folder: str, ended: Ended) -> None:
        """Failed attempts' directories are kept for a look, others go."""
        if ended.outcome == "failed":
            self._failed.append(folder)
            if len(self._failed) <= KEPT_FOLDERS_MAX:
                return
            folder = self._failed.popleft()
        try:
            os.rmdir(folder)  # most are empty, and then no thread is needed
        except OSError:
            await anyio.to_thread.run_sync(_remove, folder)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _safe(id: str) -> str:
    """A file name for an id, which may come from afar: ids of ours as they are, others by their hash."""
    return id if _SAFE.fullmatch(id) else hashlib.sha256(id.encode()).hexdigest()


def _clean(order: Order, folder: str, shared: str) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:{SYSTEM_PATH}",
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "ORCHESTRA_TASK": order.task_id,
        "ORCHESTRA_ATTEMPT": order.attempt_id,
        "ORCHESTRA_ATTEMPT_NUMBER": str(order.number),
        "ORCHESTRA_SHARED": shared,
    }


def _opened(stdin: str | None) -> tuple[dict[int, int], int, int]:
    """The program's files by number, and our ends of its stdout and stderr."""
    out, out_writer = os.pipe()
    err, err_writer = os.pipe()
    files = {1: out_writer, 2: err_writer}
    if stdin is not None:
        with tempfile.TemporaryFile() as text:
            text.write(stdin.encode())
            text.seek(0)
            files[0] = os.dup(text.fileno())
    return files, out, err


def _judged(held: _Held, ward: Ward, launch: _Launch, last_words: bytes) -> Ended:
    if held.timed_out:
        limit_s = (held.order.run_ms_max or 0) / 1000
        code, name = outcomes.decoded(ward.status)
        message = f"ran longer than its limit of {limit_s:g} s"
        return Ended("failed", cause=Cause.TIMEOUT, message=message, exit_code=code, signal=name)
    if held.rung:
        return outcomes.stopped(ward)
    if ward.refused:
        return outcomes.refused(ward)
    ended = outcomes.ended_by_guardian(ward, launch.memory_bytes)
    return ended or outcomes.exited(ward.status, launch.folder, last_words)
