"""
What a worker of Flamenco tells its manager of a task: how it goes on, its pictures, and its end, once and until it is taken. Pure.

Source: the wire of the workers of 2015, and Flamenco's Manager API document (``PATCH /tasks/1``).
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import Any, Protocol

import attrs

from orchestra.dialects.asks import Apart, Ask
from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.flamenco_parsers import Activity, activity_text
from orchestra.dialects.flamenco_words import FlamencoTask
from orchestra.dialects.flamenco_worker_options import WorkerOptions
from orchestra.dialects.flamenco_worker_runs import Run, Runs, Steps
from orchestra.statemachine.values import value

TRIES_MAX = 30
PAUSE_MS, PAUSE_MS_MAX = 1_000, 60_000
"""Between two tries to tell an end: twice as long each time, so that thirty take 25 minutes, in which a manager is back from a restart."""

ANSWER_MS = 30_000
"""A manager that is sent pictures writes them to its disk before it answers."""

ALIVE_MS = 10_000
"""A task whose program says nothing is told of so often all the same, since its manager may have given it up."""

OUTPUT, FILES = "output", "files"


class Parcels(Protocol):
    """Files that go to and come from a manager, in folders of this machine. Its calls may be slow: make them in a thread."""

    def call(self, call: FarCall) -> FarReply | None:
        """Make a call; None when it was not answered."""
        ...

    def fetch(self, call: FarCall, folder: str) -> int | None:
        """Unpack the archive that a call is answered with into a folder: the status; None without an answer, or without an archive."""
        ...

    def send(self, call: FarCall, field: str, path: str) -> FarReply | None:
        """Make a call with a folder as an archive, or with a picture, in a field of its form; None when it was not answered."""
        ...

    def clear(self, folder: str) -> None:
        """Take a folder away."""
        ...

    def prepare(self, folder: str) -> None:
        """Make a folder. Raises `Unavailable`."""
        ...


class Vitals(Protocol):
    """How busy a machine is."""

    @property
    def loads(self) -> tuple[float, float, float]: ...
    @property
    def cpu_percent(self) -> float: ...
    @property
    def disk_percent(self) -> float: ...
    @property
    def memory_percent(self) -> float: ...
    @property
    def architecture(self) -> str: ...
    @property
    def cpus(self) -> int: ...


@value
class Surroundings:
    """
    What the worker needs of its machine.

    Args:
        now_ms: A clock that never goes back.
        parcels: Calls and files.
        addresses_of: The addresses of a host by its name.
        hostname: The machine's.
        system: Its system, such as ``Linux 6.1``.
        mac_address: A number of its network.
        vitals: How busy it is.
        pid_of: The first process of an attempt; None when there is none.
        labels: Of the workers of our core that share this machine's folders.
    """

    now_ms: Callable[[], int]
    parcels: Parcels
    addresses_of: Callable[[str], frozenset[str]]
    hostname: str
    system: str
    mac_address: int
    vitals: Callable[[], Vitals]
    pid_of: Callable[[str], int | None]
    labels: tuple[str, ...]


class Reports:
    """What is told to the manager."""

    def __init__(self, options: WorkerOptions, surroundings: Surroundings, runs: Runs) -> None:
        self._options = options
        self._parcels = surroundings.parcels
        self._runs = runs

    def goes_on(self, run: Run) -> Steps:
        """Tell of new output, or that there is none. Any answer but 204 is a stop."""
        now = self._runs.now_ms()
        fresh = len(run.log) > run.sent
        if not fresh and now - run.told_ms < ALIVE_MS:
            return
        log, size = run.log_text()
        form = (("status", FlamencoTask.RUNNING.value), ("log", log), *self._fields(run))
        status = yield from self._patch(run, (*form, ("task_id", run.given.ticket)))
        if status == HTTPStatus.NO_CONTENT:
            run.sent = size
        run.told_ms = now
        if is_stop(status):
            yield from self._runs.stop(run)

    def begins(self, run: Run) -> Steps:
        """Tell that a task is there, before anything of it is fetched; whether it still is to be run."""
        fields = (("time_cost", "0"), ("job_id", run.given.job))
        status = yield from self._patch(run, (("status", FlamencoTask.RUNNING.value), *fields))
        run.told_ms = self._runs.now_ms()
        return not is_stop(status)

    def picture(self, run: Run) -> Steps:
        """Send the last picture that a program says it has saved, when it lies where a picture of the task may lie."""
        path, run.picture = run.picture, ""
        folders = (run.given.folder,) if run.given.folder else self._options.programs.roots
        below = any(path.startswith(f"{folder.rstrip('/')}/") for folder in folders if folder)
        if not path or not below or ".." in path.split("/"):
            return
        call = self._options.place.call(
            "POST", "/tasks/thumbnails", (("task_id", run.given.ticket),)
        )
        call = attrs.evolve(call, step_ms=ANSWER_MS)
        yield Apart(lambda: self._parcels.send(call, "file", path))

    def ended(self, run: Run) -> Steps:
        """Tell an end, with what was made, until that is taken or refused."""
        now = self._runs.now_ms()
        if run.end is None or now < run.next_ms:
            return
        run.tries += 1
        log, _ = run.log_text()
        form = (("status", run.end.value), ("log", log), *self._fields(run))
        if self._options.pull:
            call = attrs.evolve(self._call(run, form), step_ms=ANSWER_MS)
            output = f"{run.given.folder}/{OUTPUT}/{run.given.ticket}"
            reply = yield Apart(lambda: self._parcels.send(call, "taskfile", output))
            status = None if reply is None else reply.status
        else:
            status = yield from self._patch(run, form)
        if status is not None and (status == HTTPStatus.NO_CONTENT or is_stop(status)):
            taken = status == HTTPStatus.NO_CONTENT
            yield from self.settle(run, "was told" if taken else f"was refused ({status})")
        elif run.tries >= TRIES_MAX:
            yield from self.settle(run, "was given up")
        else:
            run.next_ms = now + min(PAUSE_MS << (run.tries - 1), PAUSE_MS_MAX)

    def settle(self, run: Run, what: str) -> Steps:
        """The manager wants to hear no more of a task: what it left behind is cleared away."""
        yield from self._runs.settle(run, what)
        if run.given.folder:
            yield Apart(lambda: self._parcels.clear(run.given.folder))

    def _fields(self, run: Run) -> tuple[tuple[str, str], ...]:
        seconds = (self._runs.now_ms() - run.begun_ms) // 1_000
        fields = (("time_cost", str(seconds)),)
        if run.given.job:
            fields = (*fields, ("job_id", run.given.job))
        if run.activity != Activity():
            fields = (*fields, ("activity", activity_text(run.activity)))
        return fields

    def _call(self, run: Run, form: tuple[tuple[str, str], ...]) -> FarCall:
        return self._options.place.call("PATCH", f"/tasks/{run.given.ticket}", form)

    def _patch(
        self, run: Run, form: tuple[tuple[str, str], ...]
    ) -> Generator[Ask, Any, int | None]:
        call = attrs.evolve(self._call(run, form), step_ms=ANSWER_MS)
        reply: FarReply | None = yield Apart(lambda: self._parcels.call(call))
        return None if reply is None else reply.status


def is_stop(status: int | None) -> bool:
    """
    Whether an answer to a report ends the task. All but 204 do, except no answer, and those of a manager that is overburdened or broken
    (408, 429, 5xx): it will know again what it gave.
    """
    if status is None or status == HTTPStatus.NO_CONTENT:
        return False
    busy = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in busy
