"""
How a guardian starts programs: what a ward is, and the system calls around its beginning.

Only the smallest part of the standard library is imported, because the guardian starts with it in a few milliseconds.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Mapping, Sequence
from typing import Any

from orchestra.engines.kin import RLIMIT_LOCKS

PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_DEFAULTED = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""
A program gets its signals as they are by nature, whatever this process ignores and whoever started its worker did.

``worker &`` in a script, for one, makes it ignore SIGINT and SIGQUIT.
"""


class Ward:
    """One program and its descendants."""

    __slots__ = (
        "cookie",
        "id",
        "kill_at",
        "killed",
        "left",
        "memory_bytes",
        "peak",
        "pid",
        "status",
        "tag",
        "termed",
        "why",
    )

    def __init__(self, id: int, pid: int, tag: int, cookie: str, memory_bytes: int) -> None:
        self.id = id
        self.pid = pid
        self.tag = tag
        self.cookie = cookie
        self.memory_bytes = memory_bytes
        self.status: int | None = None
        self.kill_at: float | None = None
        self.termed: set[tuple[int, int]] | None = None
        self.killed: set[tuple[int, int]] = set()
        self.why = ""
        self.peak = 0
        self.left = 0


def spawn(words: Mapping[str, Any], fds: Sequence[int], *, tag: bool) -> int:
    """Start the program of a ``start`` frame in a session of its own; the pid. Raises OSError and ValueError."""
    env: dict[str, str] = words["env"]
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, target, os.devnull, os.O_RDWR, 0)
        for target in range(3)
        if target not in words["fds"]
    ]
    pairs = zip(fds, words["fds"], strict=True)
    actions.extend((os.POSIX_SPAWN_DUP2, fd, target) for fd, target in pairs)
    os.chdir(words["folder"])
    try:
        program = _found(words["argv"][0], env.get("PATH", ""))
        if tag:
            _tag_self(words["tag"])
        return os.posix_spawn(
            program,
            words["argv"],
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
    finally:
        os.chdir("/")  # a working directory that is held can not be unmounted


def _found(program: str, path: str) -> str:
    """Where a program is, by the PATH that it will have itself."""
    if "/" in program:
        return program
    for folder in path.split(":"):
        candidate = f"{folder}/{program}"
        if folder and _is_program(candidate):
            return candidate
    raise FileNotFoundError(2, f"no program {program!r} in PATH={path}")


def _is_program(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - pathlib would double the time of the start
        return stat.S_ISREG(mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def told(problem: OSError | ValueError, words: Mapping[str, Any]) -> str:
    """Why a program could not be started."""
    if isinstance(problem, FileNotFoundError) and "PATH=" in str(problem.strerror):
        return str(problem.strerror)
    if isinstance(problem, OSError):
        return f"{words['argv'][0]!r}: {problem.strerror}"
    return f"{words['argv'][0]!r}: {problem}"


def _tag_self(tag: int) -> None:
    """Wear the tag while starting a program, which inherits it. Only the soft limit: it can be set again."""
    _, hard = resource.getrlimit(RLIMIT_LOCKS)
    try:
        resource.setrlimit(RLIMIT_LOCKS, (tag, hard))
    except (ValueError, OSError):
        return  # the machine's owner set a lower bound; session and cookie still tell


BOUND_BYTES_MAX = (1 << 63) - 1
"""More can not be said to the system, and is no bound anyway."""


def bound(pid: int, memory_bytes: int) -> None:
    """
    Keep one process from taking far more than its limit between two samples.

    The sampling names the limit in its message, so it shall come first: the bound lies well above.
    """
    if hasattr(resource, "prlimit"):
        most = min(2 * memory_bytes + 256 * 1024 * 1024, BOUND_BYTES_MAX)
        try:
            resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))
        except (OSError, ValueError):
            return  # it has ended, or a lower bound is in force already


def adopts_orphans() -> bool:
    """Ask the system to hand this process every descendant that loses its parent. False where it can not."""
    return _asked_of_system(PR_SET_CHILD_SUBREAPER)


def gains_no_privileges() -> bool:
    """Ask the system that no program of this process or its descendants gets more rights than it has. False where it can not."""
    return _asked_of_system(PR_SET_NO_NEW_PRIVS)


def _asked_of_system(option: int) -> bool:
    import ctypes

    try:
        call = ctypes.CDLL(None, use_errno=True).prctl
    except (AttributeError, OSError):
        return False
    return bool(call(option, 1, 0, 0, 0) == 0)


def took_zombie(pid: int) -> bool:
    """Take a child's exit status; False while it lives."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def drain(fd: int) -> None:
    """Empty a pipe that does not block."""
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        return
