"""
The worker's side of the pull protocol (2015-03): register and ask once a second, fetch, run, report, and begin again. Pure.

Source: the wire of the running programs of 2015-03-28, in the order in which they made their calls.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import attrs
import msgspec

from orchestra.dialects.asks import Apart, Ask
from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.flamenco_compilers import MARK_COMMAND, MARK_JOB, MARK_OUTPUT
from orchestra.dialects.flamenco_worker_offers import Offer, note, read_offer
from orchestra.dialects.flamenco_worker_options import WorkerOptions
from orchestra.dialects.flamenco_worker_programs import read_command
from orchestra.dialects.flamenco_worker_reports import (
    ANSWER_MS,
    FILES,
    OUTPUT,
    Reports,
    Surroundings,
)
from orchestra.dialects.flamenco_worker_runs import Given, Run, Runs, Steps
from orchestra.errors import OrchestraError, Rejected, Unavailable


class _Kind(msgspec.Struct, frozen=True):
    commands: dict[str, dict[str, str]] = {}


_kind = msgspec.json.Decoder(_Kind)


class Pull:
    """One worker that asks."""

    def __init__(
        self, options: WorkerOptions, surroundings: Surroundings, runs: Runs, reports: Reports
    ) -> None:
        self._options = options
        self._around = surroundings
        self._runs = runs
        self._reports = reports
        self.answers = True

    def round(self) -> Steps:
        """Once a second: tell of the task, or ask for one."""
        yield from self._runs.open()
        for run in self._runs.all():
            yield from self._runs.look(run)
            if run.picture:
                yield from self._reports.picture(run)
            if run.end is None and not run.stopping:
                yield from self._reports.goes_on(run)
            elif run.end is not None:
                yield from self._reports.ended(run)
        if not self._runs.all():
            yield from (self._ask() if self._runs.noted is None else self._returns())

    def _ask(self) -> Steps:
        hostname = self._options.hostname or self._around.hostname
        me = (
            ("port", str(self._options.port)),
            ("hostname", hostname),
            ("system", self._around.system),
        )
        if (yield from self._call("GET", "/info")) is None:
            self._silent()
            return
        yield from self._call("POST", "/workers", me)
        reply = yield from self._call("GET", f"/tasks/compiled/0?worker={quote(hostname, safe='')}")
        if reply is None:
            self._silent()
            return
        self.answers = True
        if reply.status != HTTPStatus.OK:
            return
        offer = read_offer(reply)
        try:
            noted = yield from note(offer)
        except Rejected as error:
            told = f"the task can not be noted: {said(error)}"
            self._runs.refused(self._given(offer), told)
        else:
            yield from self._take(offer, noted)

    def _returns(self) -> Steps:
        """After a restart: take up what was given before, and not begun."""
        if self._runs.noted is not None:
            yield from self._take(*self._runs.noted)
        self._runs.noted = None

    def _given(self, offer: Offer, noted: str = "") -> Given:
        ticket, job = str(offer.task_id), str(offer.job_id)
        folder = f"{self._options.folder}/{ticket}"
        return Given(ticket, job, offer.task_parser or "", (), folder, noted=noted)

    def _take(self, offer: Offer, noted: str) -> Steps:
        given = self._given(offer, noted)
        run = Run(given, self._runs.now_ms())
        if not (yield from self._reports.begins(run)):
            yield from self._reports.settle(run, "was refused")
            return
        try:
            given = yield from self._made_ready(offer, given)
            yield from self._runs.begin(given)
        except (Rejected, Unavailable) as error:
            # It has failed, and the manager is told why: it may try elsewhere.
            self._runs.refused(given, said(error))

    def _made_ready(self, offer: Offer, given: Given) -> Generator[Ask, Any, Given]:
        """Fetch what a task needs, and put together what will run. Raises `Forbidden`, `Malformed`, `Unavailable`."""
        parcels = self._around.parcels
        files = f"{given.folder}/{FILES}"
        output = f"{given.folder}/{OUTPUT}/{given.ticket}"
        yield Apart(lambda: parcels.clear(given.folder))
        yield Apart(lambda: parcels.prepare(output))
        for name, needed in (
            (f"jobfile_{given.job}.zip", True),
            (f"jobsupportfile_{given.job}.zip", False),
            (f"dependencies_{given.ticket}.zip", False),
        ):
            call = self._options.place.call("GET", f"/static/storage/{given.job}/{name}")
            fetched = attrs.evolve(call, step_ms=ANSWER_MS)
            status = yield Apart(lambda call=fetched: parcels.fetch(call, files))
            if needed and status != HTTPStatus.OK:
                told = "no archive came" if status is None else f"status {status}"
                raise Unavailable(f"{name} can not be fetched: {told}")
        words = read_command(offer.task_command)
        program = words[0]
        if program == MARK_COMMAND:
            program = self._options.programs.find(offer.kind, (yield from self._named(offer)))
        else:
            program = self._options.programs.find(program)
        marks = {MARK_JOB: f"{files}/", MARK_OUTPUT: output, MARK_COMMAND: program}
        argv = tuple(_filled(word, marks) for word in words[1:])
        self._options.programs.check(argv, given.folder)
        env = (
            ("WORKER_JOBPATH", f"{files}/"),
            ("WORKER_OUTPUTPATH", output),
            ("WORKER_DEPENDPATH", files),
        )
        return attrs.evolve(given, argv=(program, *argv), env=env)

    def _named(self, offer: Offer) -> Generator[Ask, Any, str]:
        """The program that the manager names for a kind of task on this system; empty when it names none."""
        reply = yield from self._call("GET", f"/settings/{quote(offer.kind, safe='')}")
        try:
            read = _kind.decode(reply.body) if reply is not None else _Kind()
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return ""
        system = self._around.system.partition(" ")[0]
        return read.commands.get(offer.command_name, {}).get(system, "")

    def _call(
        self, method: str, path: str, form: tuple[tuple[str, str], ...] = ()
    ) -> Generator[Ask, Any, FarReply | None]:
        call = self._options.place.call(method, path, form)
        return (yield Apart(lambda: self._around.parcels.call(call)))

    def _silent(self) -> None:
        """Told once, not each second. Raises `Unavailable`."""
        if self.answers:
            self.answers = False
            raise Unavailable(f"the manager at {self._options.place.shown} does not answer")


def said(error: OrchestraError) -> str:
    """A refusal as a line of a log."""
    remedy = error.remedy if isinstance(error, Rejected) else ""
    message = error.message if isinstance(error, Rejected) else str(error)
    return f"{message} ({remedy})" if remedy else message


def _filled(word: str, marks: Mapping[str, str]) -> str:
    for mark, place in marks.items():
        word = word.replace(mark, place)
    return word
