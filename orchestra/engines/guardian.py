"""
The guardian: a small process that starts programs for an engine and answers for it that each of them ends, to the last descendant.

An engine starts one, and speaks with it in frames of JSON over a socket. A *ward* is one program and whatever descends from it.
The guardian is a child sub-reaper (prctl(2)), so every descendant that loses its parent becomes its child, whatever it did
to its session, group, signals or environment; whose it is tell the session, an inherited tag, and a cookie in the environment.
It ends all wards when the engine's end of the socket closes (the engine's process died, even by SIGKILL) and when the
lease passes unrenewed (the engine's process is frozen).

It runs in a session of its own, with nothing but the standard library: ``python -I -S``.

=========== =============================================================== ==========================================
``do``      from the engine                                                  answers
=========== =============================================================== ==========================================
``start``   ``ward argv env folder fds memory_bytes``, files ride along      ``started pid`` or ``refused error``
``climb``   ``ward rung``: ``asked``, ``term`` or ``kill``                   ``gone`` when nothing is left
``lease``   ``until_s`` on the monotonic clock, which all processes share
=========== =============================================================== ==========================================

``exited status`` tells that the program itself ended; ``gone`` follows when no descendant of it is alive either.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from typing import Any

from orchestra.engines.kin import COOKIE, PsTable, Seen, Table, send, table
from orchestra.engines.line import Line
from orchestra.engines.spawning import (
    Ward,
    adopts_orphans,
    bound,
    drain,
    gains_no_privileges,
    spawn,
    told,
    took_zombie,
)

LEFTOVER_GRACE_S = 1.0
"""What outlives its program, or its engine, gets this long between TERM and KILL."""

SWEEP_S = 0.02
"""While a ward ends, its survivors are looked for this often: a fork between two looks is found by the next."""

SAMPLE_S = 0.1
"""How often the memory of limited wards is added up."""

KILL_ROUNDS = 64
"""Looks without a pause while each finds new processes: beyond it others get their turn before the next round."""

POLL_S_MAX = 3600.0
"""Of a lease that ends in years this much at a time: poll(2) counts milliseconds in 31 bits."""

GIVE_UP_S = 60.0
"""A guardian without an engine whose wards can not be ended (they changed their user) leaves after this long."""

FIRST_FD = 10
"""Files for programs arrive with numbers from here on: above the ones that programs are given."""


class Guardian:
    """The loop. ``reaper`` is false where orphans can not be adopted: then only session, group and cookie find them."""

    def __init__(self, line: Line, processes: Table, *, reaper: bool) -> None:
        self.line = line
        self.processes = processes
        self.reaper = reaper
        self.wards: dict[int, Ward] = {}
        self.mains: dict[int, Ward] = {}
        self.lease_s: float | None = None
        self.orphaned_at: float | None = None
        self._owners: dict[int, Ward | None] = {}
        self._sample_at = 0.0
        self._leaving = False
        # A write to this pipe by the signal handler wakes the poll below.
        self._woken, waker = os.pipe()
        for end in (self._woken, waker):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _ignored)
        signal.signal(signal.SIGTERM, self._told_to_leave)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    # ------------------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """Serve until the engine is gone and nothing is left."""
        while self.orphaned_at is None or self.wards:
            if self.orphaned_at is not None and _now() > self.orphaned_at + GIVE_UP_S:
                return
            self._wait()
            if self._leaving:
                self._bereaved()
            self._reap()
            self._watch_time()
            for ward in [ward for ward in self.wards.values() if _is_ending(ward)]:
                self._sweep(ward)
        self._end_strangers()

    def _told_to_leave(self, *_: object) -> None:
        self._leaving = True  # a handler may come in the middle of anything

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self.orphaned_at is None:
            poll.register(self.line, self.line.wanted)
        timeout_s = self._timeout_s()
        ready = poll.poll(None if timeout_s is None else max(0.0, timeout_s) * 1000)
        for fd, _ in ready:
            if fd == self._woken:
                drain(fd)
            else:
                self.line.flush()
                self._hear()

    def _timeout_s(self) -> float | None:
        times = [SWEEP_S] if any(map(_is_ending, self.wards.values())) else []
        if any(ward.memory_bytes for ward in self.wards.values()):
            times.append(SAMPLE_S)
        if self.lease_s is not None and self.wards and _now() < self.lease_s:
            times.append(min(self.lease_s - _now(), POLL_S_MAX))
        return min(times, default=None)

    def _watch_time(self) -> None:
        now = _now()
        if self.lease_s is not None and now >= self.lease_s:
            for ward in self.wards.values():
                if not ward.why:
                    ward.why = "lease"
                ward.kill_at = now
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_S
            for ward in self.wards.values():
                if ward.memory_bytes and not ward.why:
                    self._weigh(ward)

    # ------------------------------------------------------------------------------------------------------- the wire

    def _hear(self) -> None:
        heard = self.line.receive()
        if heard is None:
            self._bereaved()
            return
        for words in heard:
            self._obey(words)

    def _obey(self, words: dict[str, Any]) -> None:
        if words["do"] == "start":
            fds = self.line.files(len(words["fds"]))
            try:
                self._start(words, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        elif words["do"] == "lease":
            self.lease_s = words["until_s"]
        elif words["do"] == "climb":
            ward = self.wards.get(words["ward"])
            if ward is not None:
                self._climb(ward, words["rung"])

    def _bereaved(self) -> None:
        """The engine is gone: nobody is left to ask for anything, so everything ends."""
        if self.orphaned_at is not None:
            return
        self.orphaned_at = _now()
        self.line.close()
        for ward in self.wards.values():
            self._climb(ward, "term")
            ward.kill_at = min(ward.kill_at or self.orphaned_at + 1e9, _now() + LEFTOVER_GRACE_S)

    # ------------------------------------------------------------------------------------------------------ beginning

    def _start(self, words: dict[str, Any], fds: list[int]) -> None:
        id = words["ward"]
        if self.lease_s is not None and _now() >= self.lease_s:
            self.line.say(say="refused", ward=id, error="the lease has passed")
            return
        try:
            pid = spawn(words, fds, tag=self.processes.tags)
        except (OSError, ValueError) as problem:
            self.line.say(say="refused", ward=id, error=told(problem, words))
            return
        ward = Ward(id, pid, words["tag"], words["env"][COOKIE], words["memory_bytes"])
        if ward.memory_bytes:
            bound(pid, ward.memory_bytes)
        self.wards[id] = self.mains[pid] = ward
        self.line.say(say="started", ward=id, pid=pid)

    # --------------------------------------------------------------------------------------------------------- ending

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._owners.pop(pid, None)
            ward = self.mains.pop(pid, None)
            if ward is None:
                continue
            ward.status = status
            self.line.say(say="exited", ward=ward.id, status=status)
            self._exited(ward)

    def _exited(self, ward: Ward) -> None:
        """The program itself is over: what it left behind ends too."""
        alive = self._family(ward)
        if not alive:
            self._gone(ward)
            return
        ward.left = len(alive)
        if ward.kill_at is None:
            ward.kill_at = _now() + LEFTOVER_GRACE_S
        self._term(ward, alive)

    def _gone(self, ward: Ward) -> None:
        del self.wards[ward.id]
        self.line.say(
            say="gone",
            ward=ward.id,
            status=ward.status,
            why=ward.why,
            peak_bytes=ward.peak,
            left=ward.left,
        )

    def _climb(self, ward: Ward, rung: str) -> None:
        if rung == "kill":
            ward.kill_at = _now()
            self._sweep(ward)
        elif rung == "term":
            self._term(ward, self._family(ward))
        elif ward.status is None:
            os.kill(ward.pid, signal.SIGTERM)  # not yet waited for, so the pid is still its own

    def _term(self, ward: Ward, alive: list[Seen]) -> None:
        if ward.termed is None:
            ward.termed = set()
        for seen in alive:
            if (seen.pid, seen.born) not in ward.termed:
                ward.termed.add((seen.pid, seen.born))
                self._send(seen, signal.SIGTERM)
                self._send(seen, signal.SIGCONT)  # a stopped process gets its TERM when it goes on

    def _sweep(self, ward: Ward) -> None:
        """Look for what is left of a ward that ends, and do to it what is due."""
        for _ in range(KILL_ROUNDS):
            alive = self._family(ward)
            if not alive:
                if ward.status is not None:
                    self._gone(ward)
                return
            if ward.kill_at is None or _now() < ward.kill_at:
                self._term(ward, alive)
                return
            # Killed parents hand their children to this process, so each round sees all that was forked before it.
            fresh = [seen for seen in alive if (seen.pid, seen.born) not in ward.killed]
            for seen in fresh or alive:
                self._send(seen, signal.SIGKILL)
            ward.killed.update((seen.pid, seen.born) for seen in fresh)
            if not fresh:
                return

    def _took_zombies(self, pids: list[int]) -> bool:
        """Take the exit statuses of children that are no ward's program; whether there were any."""
        taken = [pid for pid in pids if took_zombie(pid)]
        for pid in taken:
            self._owners.pop(pid, None)
        return bool(taken)

    def _send(self, seen: Seen, number: int) -> bool:
        try:
            return send(seen, number, self.processes)
        except PermissionError:
            return False  # it changed its user; the ward stays unconfirmed, and the engine says so

    # ----------------------------------------------------------------------------------------------------- who is who

    def _family(self, ward: Ward) -> list[Seen]:
        """
        All that is alive of a ward.

        A process that forks and exits hands its child to this process after the list of children was read, and is a zombie in it.
        So as long as there are zombies in the list, finding nobody means nothing: they are taken and the list is read again.
        """
        alive, adopted = self._look(ward)
        while not alive and self._took_zombies(adopted):
            alive, adopted = self._look(ward)
        return alive

    def _look(self, ward: Ward) -> tuple[list[Seen], list[int]]:
        """Who was seen alive of a ward, and the list of adopted children in which they were sought."""
        adopted = [pid for pid in self.processes.children(os.getpid()) if pid not in self.mains]
        roots = [pid for pid in adopted if self._owner(pid) is ward]
        if ward.status is None:
            roots.append(ward.pid)
        if not self.reaper:
            cookies = self.processes.cookies()
            roots += [pid for pid, cookie in cookies.items() if cookie == ward.cookie]
            roots.append(ward.pid)  # its process group outlives it
        return (self.processes.family(roots) if roots else []), adopted

    def _owner(self, pid: int) -> Ward | None:
        if pid not in self._owners:
            self._owners[pid] = self._identified(pid)
        return self._owners[pid]

    def _identified(self, pid: int) -> Ward | None:
        seen = self.processes.look(pid)
        if seen is None or not seen.alive:
            return None
        tag, cookie = self.processes.tag(pid), self.processes.cookie(pid)
        for ward in self.wards.values():
            if ward.pid == seen.session or ward.tag == tag or ward.cookie == cookie:
                return ward
        # A child of this process that is nobody's took pains to hide, or outlived its ward: it ends here and now.
        self._send(seen, signal.SIGKILL)
        return None

    def _end_strangers(self) -> None:
        for seen in self.processes.family(self.processes.children(os.getpid())):
            self._send(seen, signal.SIGKILL)

    def _weigh(self, ward: Ward) -> None:
        family = self._family(ward)
        used = self.processes.resident_bytes(family)
        if used > ward.memory_bytes:
            used = self.processes.proportional_bytes(family)
        ward.peak = max(ward.peak, used)
        if used > ward.memory_bytes:
            ward.why = "memory"
            ward.kill_at = _now()


def _ignored(*_: object) -> None:
    """The wake-up pipe tells of the signal; without a handler it would not be written to."""


def _now() -> float:
    return time.monotonic()


def _is_ending(ward: Ward) -> bool:
    return ward.status is not None or ward.kill_at is not None or ward.termed is not None


def main(fd: int, mode: str = "") -> None:
    """Serve on the socket ``fd``. ``mode`` ``plain`` does without adoption and /proc, as on systems that have neither."""
    line = Line(socket.socket(fileno=fd))
    # Files for programs arrive with numbers above the ones that a program is given, so that neither overwrites the other.
    low: list[int] = []
    while not low or low[-1] < FIRST_FD - 1:
        low.append(os.dup(0))
    gains_no_privileges()  # a program that became another user could not be ended
    if mode == "plain":
        Guardian(line, PsTable(), reaper=False).run()
    else:
        Guardian(line, table(), reaper=adopts_orphans()).run()
