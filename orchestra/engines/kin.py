"""
Who descends from whom among the running processes, what they use, and how to signal them without hitting a stranger.

Linux tells it in /proc. Elsewhere `ps` does, which is slower and knows less: see `PsTable`. Sources: proc_pid_task(5),
proc_pid_stat(5), proc_pid_limits(5), pidfd_open(2), ps(1).

Only the smallest part of the standard library is imported, because the guardian starts with it in a few milliseconds.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable

COOKIE = "ORCHESTRA_WARD"
"""The environment variable by which a process that left its family is found again."""

RLIMIT_LOCKS = 10
"""
A limit that Linux has not enforced since 2.4 and still hands down from parent to child: a tag that an empty environment, a
new session and a lost parent all leave in place.
"""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Seen:
    """One process as it was seen: a reused pid has another ``born`` (clock ticks since boot)."""

    __slots__ = ("born", "parent", "pid", "session", "state")

    def __init__(self, pid: int, state: str, parent: int, session: int, born: int) -> None:
        self.pid = pid
        self.state = state
        self.parent = parent
        self.session = session
        self.born = born

    @property
    def alive(self) -> bool:
        """A zombie is not: nothing of it runs, it only waits for its parent to ask."""
        return self.state not in "ZXx"


def _read(path: str) -> bytes:
    """The content of a file of /proc; empty when the process is gone or is not ours to look at."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        parts: list[bytes] = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    except OSError:
        return b""
    finally:
        os.close(fd)


class ProcTable:
    """The process table of Linux."""

    tags = True
    """`tag` knows the number that a process inherited."""

    def look(self, pid: int) -> Seen | None:
        """The process, or None when there is none."""
        # The command may hold spaces and brackets, so the fields are counted from the last bracket.
        head, _, tail = _read(f"/proc/{pid}/stat").rpartition(b")")
        if not head:
            return None
        fields = tail.split()
        state = fields[0].decode()
        if state == "Z" and int(fields[17]) > 1:
            state = "S"  # only its first thread is over, the others live on
        return Seen(pid, state, int(fields[1]), int(fields[3]), int(fields[19]))

    def children(self, pid: int) -> list[int]:
        """
        Direct children, zombies included.

        For the calling process, with one thread, the list is exact: only its own `waitpid` takes anything out of it.
        For others a child may be missed while its siblings end, so callers look again until nothing is left.
        """
        found: list[int] = []
        for task in self._threads(pid):
            found += map(int, _read(f"/proc/{pid}/task/{task}/children").split())
        return found

    def _threads(self, pid: int) -> list[str]:
        if pid == os.getpid():
            return [str(pid)]
        try:
            return os.listdir(f"/proc/{pid}/task")
        except OSError:
            return []

    def family(self, roots: Iterable[int]) -> list[Seen]:
        """The roots and all their descendants, without zombies that have no children."""
        found: dict[int, Seen] = {}
        waiting = list(roots)
        while waiting:
            pid = waiting.pop()
            if pid in found:
                continue
            seen = self.look(pid)
            if seen is not None:
                found[pid] = seen
                waiting += self.children(pid)
        return [seen for seen in found.values() if seen.alive]

    def everyone(self) -> list[int]:
        """All pids."""
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]

    def tag(self, pid: int) -> int | None:
        """The number that the process inherited from its guardian."""
        for line in _read(f"/proc/{pid}/limits").splitlines():
            if line.startswith(b"Max file locks"):
                text = line.split()[3]
                return int(text) if text.isdigit() else None
        return None

    def cookie(self, pid: int) -> str:
        """The cookie in the environment with which the program was started; empty without one."""
        return _cookie_in(_read(f"/proc/{pid}/environ").split(b"\0"))

    def cookies(self) -> dict[int, str]:
        """Every process that has a cookie."""
        found = {pid: self.cookie(pid) for pid in self.everyone()}
        return {pid: cookie for pid, cookie in found.items() if cookie}

    def resident_bytes(self, family: Iterable[Seen]) -> int:
        """Memory in use: the sum over the family, where pages that several share count several times."""
        total = 0
        for seen in family:
            fields = _read(f"/proc/{seen.pid}/statm").split()
            total += int(fields[1]) * _PAGE if fields else 0
        return total

    def proportional_bytes(self, family: Iterable[Seen]) -> int:
        """Memory in use, where a page that several share counts once in all. Slower than `resident_bytes`."""
        total = 0
        for seen in family:
            for line in _read(f"/proc/{seen.pid}/smaps_rollup").splitlines():
                if line.startswith(b"Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


class PsTable:
    """
    The process table as `ps` tells it, for systems without /proc (macOS).

    It has no tags, no time of birth and no memory shared fairly, and orphans are not handed to the guardian there: a
    process that left its parent, its group and its environment all three is not found.
    """

    tags = False

    def _rows(self) -> dict[int, Seen]:
        rows: dict[int, Seen] = {}
        for fields in _ps("-A", "-o", "pid=,ppid=,pgid=,stat="):
            pid, parent, group = (int(field) for field in fields[:3])
            rows[pid] = Seen(pid, fields[3][:1].decode(), parent, group, 0)
        return rows

    def look(self, pid: int) -> Seen | None:
        return self._rows().get(pid)

    def children(self, pid: int) -> list[int]:
        return [seen.pid for seen in self._rows().values() if seen.parent == pid]

    def family(self, roots: Iterable[int]) -> list[Seen]:
        """Descendants, and whoever is in a process group led by one of the roots."""
        rows = self._rows()
        first = set(roots)
        found = {pid for pid, seen in rows.items() if pid in first or seen.session in first}
        grown = True
        while grown:
            more = {pid for pid, seen in rows.items() if seen.parent in found} - found
            found |= more
            grown = bool(more)
        return [rows[pid] for pid in found if pid in rows and rows[pid].alive]

    def everyone(self) -> list[int]:
        return list(self._rows())

    def tag(self, pid: int) -> int | None:  # noqa: ARG002 - one shape with `ProcTable`
        return None

    def cookie(self, pid: int) -> str:
        return self.cookies().get(pid, "")

    def cookies(self) -> dict[int, str]:
        words = ("-axEww",) if sys.platform == "darwin" else ("axeww",)
        found: dict[int, str] = {}
        for pid, *rest in _ps(*words, "-o", "pid=,command="):
            cookie = _cookie_in(rest)
            if cookie:
                found[int(pid)] = cookie
        return found

    def resident_bytes(self, family: Iterable[Seen]) -> int:
        wanted = {seen.pid for seen in family}
        total = 0
        for pid, kibibytes in _ps("-A", "-o", "pid=,rss="):
            total += int(kibibytes) * 1024 if int(pid) in wanted else 0
        return total

    def proportional_bytes(self, family: Iterable[Seen]) -> int:
        return self.resident_bytes(family)


Table = ProcTable | PsTable


def table() -> Table:
    """The best one that this system has."""
    own = os.getpid()
    return ProcTable() if os.path.exists(f"/proc/{own}/task/{own}/children") else PsTable()


def begun_with(name: str, value: str) -> int | None:
    """The first process that was started with a variable in its environment; None when there is none, or no /proc to look into."""
    wanted = f"{name}={value}".encode()
    try:
        everyone = sorted(ProcTable().everyone())
    except OSError:
        return None
    found = (pid for pid in everyone if wanted in _read(f"/proc/{pid}/environ").split(b"\0"))
    return next(found, None)


def _ps(*words: str) -> list[list[bytes]]:
    """What `ps` prints, in words, without the line about itself; the first word is the pid."""
    import subprocess

    # An absolute path: the guardian must not run what a stranger put into PATH.
    program = next(path for path in ("/bin/ps", "/usr/bin/ps") if os.access(path, os.X_OK))
    with subprocess.Popen([program, *words], stdout=subprocess.PIPE) as asked:  # noqa: S603 - argv is our own
        printed = asked.communicate()[0]
    lines = [line.split() for line in printed.splitlines()]
    return [line for line in lines if line and int(line[0]) != asked.pid]


def _cookie_in(words: Iterable[bytes]) -> str:
    start = f"{COOKIE}=".encode()
    for word in words:
        if word.startswith(start):
            return word[len(start) :].decode(errors="replace")
    return ""


def send(known: Seen, number: int, processes: Table) -> bool:
    """
    Signal a process that is not the caller's own child, only when it still is the one that was seen.

    Returns False when it is gone, or is another's by now. Raises PermissionError when it changed its user.
    """
    try:
        pidfd = os.pidfd_open(known.pid)
    except AttributeError:  # no such call on this system: the check below is all that can be done
        return _send_checked(known, number, processes, -1)
    except OSError:
        return False
    try:
        return _send_checked(known, number, processes, pidfd)
    finally:
        os.close(pidfd)


def _send_checked(known: Seen, number: int, processes: Table, pidfd: int) -> bool:
    now = processes.look(known.pid)
    if now is None or now.born != known.born:
        return False
    try:
        if pidfd >= 0:
            signal.pidfd_send_signal(pidfd, number)
        else:
            os.kill(known.pid, number)
    except ProcessLookupError:
        return False
    return True
