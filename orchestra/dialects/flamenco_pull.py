"""
What a worker of the pull protocol (2015-03) says: that it is there, that it wants work, how its task is doing, and that it is over.

A worker works at one task, and is silent towards `poll` meanwhile. It knows an attempt by a number, its ticket, and nobody is believed
who reports on one from another address. Any answer but 204 to a report makes it stop what it runs.

Source: Flamenco's Manager API document, and the wire of the running programs of 2015-03-28.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol

import msgspec

from orchestra.dialects.asks import Apart, Ask
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.dialects.flamenco_crew import Crew, Steps
from orchestra.dialects.flamenco_desk import Card, Run
from orchestra.dialects.flamenco_forms import MISSING, Form
from orchestra.dialects.flamenco_logs import keep_log
from orchestra.dialects.flamenco_options import Options
from orchestra.dialects.flamenco_parsers import activity_text
from orchestra.dialects.flamenco_replies import (
    CANCELLED,
    DISABLED,
    DUPLICATED,
    NO_WORK,
    NOTHING,
    UNREGISTERED,
    told,
)
from orchestra.dialects.flamenco_tasks import compile_run
from orchestra.dialects.flamenco_words import HAPPENING, FlamencoTask, read_report
from orchestra.dialects.wire import WireResponse
from orchestra.errors import Malformed, NotFound, Rejected
from orchestra.statemachine.ids import task_id
from orchestra.statemachine.lifecycles import AttemptStatus
from orchestra.statemachine.queries import GetJob, GetTask
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import JobView
from orchestra.statemachine.reports import Happening

REDELIVER_MS = 10_000
"""A worker that was sent a task says at once that it has it: after this long the answer was lost on its way."""

TIME_COST_S_MAX = 10**9
_JOB_FILES = [["jobfile", "jobfile.zip"], ["jobsupportfile", "jobsupportfile.zip"]]


class Shelf(Protocol):
    """A folder of files by name, on the manager's machine. Its calls may be slow."""

    def save(self, name: str, content: bytes) -> None:
        """Keep a file, in place of the one with this name. Raises `Unavailable` when it can not be kept."""
        ...

    def read(self, name: str) -> bytes | None:
        """A file; None when there is none."""
        ...

    def joined(self, names: Sequence[str]) -> bytes:
        """The archives of these names as one; those that are not there are passed over. Raises `Unavailable`."""
        ...

    def save_picture(self, name: str, zipped: bytes) -> None:
        """Keep the last picture in what a worker sent back; without one nothing changes. Raises `Unavailable` as `save` does."""
        ...


class Pull:
    """The worker's calls. Each gives the steps of a dialogue that ends with a `WireResponse`."""

    def __init__(
        self, crew: Crew, options: Options, compilers: Compilers, shelf: Shelf | None
    ) -> None:
        self._crew = crew
        self._desk = crew.desk
        self._options = options
        self._compilers = compilers
        self._shelf = shelf

    def register(self, form: Form, client: str) -> Steps:
        """A worker is there. One that is known keeps its task; two at one address are two, by host name and port."""
        hostname = form.text("hostname", "null", chars_max=100)
        system = form.text("system", chars_max=200)
        port = form.number("port", 0, 0, 65_535)
        yield from self._crew.open()
        desk = self._desk
        card = desk.add(Card(hostname, client, port, system))
        yield from self._crew.back(card)
        if card.system != system:
            card.system, card.joined = system, False
        desk.asks(card)
        if not card.joined:
            try:
                yield from self._crew.join(card)
            except Rejected:
                # What the core does not take must not pile up here either.
                if not card.id:
                    desk.forget(card)
                raise
        return NOTHING

    def poll(self, client: str, hostname: str) -> Steps:
        """A worker wants work: 200 with a task, 400 when there is none, 403 when it gets none."""
        yield from self._crew.open()
        desk = self._desk
        card = desk.who_asks(client, hostname)
        if card is None:
            return told(403, UNREGISTERED)
        yield from self._crew.back(card)
        yield from self._crew.beat(card)
        run = card.run
        if run is not None and run.started:
            return (yield from self._asks_in_the_middle(run))
        if run is not None and run.stopping:
            yield from self._crew.end(run, Happening.STOPPED, message="it was not begun")
            return NO_WORK
        if card.disabled or (card.paused and run is None):
            return told(403, DISABLED)
        if run is None or (run.delivered and desk.now_ms() - run.touched_ms < REDELIVER_MS):
            return NO_WORK
        return (yield from self._deliver(run))

    def report(self, ticket: int, form: Form, client: str) -> Steps:
        """How a task is doing. 204 when the worker shall go on, or its end was taken."""
        word = read_report(form.text("status", chars_max=32))
        if word is None:
            missing = "status" not in form.fields
            raise Malformed(MISSING if missing else "is no status of a task", where="status")
        run = yield from self._run(ticket, client)
        if run is None:
            return told(403, CANCELLED)
        if run.card.ip != client:
            return told(403, DUPLICATED)
        yield from self._crew.back(run.card)
        run.touched_ms, run.delivered = self._desk.now_ms(), True
        run.time_cost_s = form.number("time_cost", 0, 0, TIME_COST_S_MAX) or 0
        yield from self._crew.beat(run.card)
        kept = run.ticket in self._desk.runs and (
            yield from keep_log(run, form.text("log"), form.text("activity"))
        )
        if not kept:
            self._desk.drop(run)
            return told(403, CANCELLED)
        if HAPPENING[word] is Happening.PROGRESS:
            return (yield from self._goes_on(run))
        return (yield from self._ends(run, word, form))

    def thumbnail(self, form: Form, client: str) -> Steps:
        """The last picture of a task, kept as its job's. Answers with whether it was kept."""
        ticket = form.number("task_id", None, 0, 1 << 53)
        picture = form.files.get("file", b"")
        run = yield from self._run(ticket or 0, client)
        kept = run is not None and run.card.ip == client and self._shelf is not None and picture
        if kept and run is not None:
            name = picture_name(run.order.job_id)
            yield Apart(lambda: self._shelf and self._shelf.save(name, picture))
            run.pictured = True
        return told(200, {"file": bool(kept)})

    def dependencies(self, job: int, ticket: int | None, client: str) -> Steps:
        """
        What tasks before a task have sent back, as one archive for its worker; 404 for a task without any. Later workers do not name their
        task: it is the one that they have of the job.
        """
        yield from self._crew.open()
        mine = [card.run for card in self._desk.at(client) if card.run is not None]
        run = next((run for run in mine if ticket in (None, run.ticket)), None)
        shelf = self._shelf
        if run is None or run.order.job_number != job or shelf is None:
            raise NotFound("there is no such file", where="name")
        view: JobView = yield GetJob(run.order.job_id)
        stages = {stage.index: stage for stage in view.stages}
        own = next(stage for stage in view.stages if stage.name == run.order.stage)
        before = [stages[index] for index in own.after]
        names = [
            output_name(task_id(view.id, position))
            for stage in before
            for position in range(stage.first, stage.first + stage.size)
        ]
        if not names:
            raise NotFound("it comes after no other task", where="name")
        joined = yield Apart(lambda: shelf.joined(names))
        return WireResponse(200, joined, "application/zip")

    # below: one task ------------------------------------------------------------------------------------------------

    def _run(self, ticket: int, client: str) -> Generator[Ask, Any, Run | None]:
        yield from self._crew.open()
        run = self._desk.runs.get(ticket)
        if run is None:
            yield from self._crew.restore_at(client)
            run = self._desk.runs.get(ticket)
        return run

    def _asks_in_the_middle(self, run: Run) -> Steps:
        """
        A worker that works asks for nothing: this one has let go of its task, or it is another of the same name. Which of the two is
        seen from how long nothing was heard of the task.
        """
        silent_ms = self._desk.now_ms() - run.touched_ms
        if run.told or silent_ms >= self._options.worker_timeout_s * 1_000:
            stop = run.stopping or run.told
            cause = Cause.NONE if stop else Cause.LOST
            message = "it was stopped" if stop else "its worker asks for other work"
            yield from self._crew.end(run, Happening.STOPPED, cause=cause, message=message)
        return NO_WORK

    def _deliver(self, run: Run) -> Steps:
        # Noted first: what follows may wait, and the same worker may ask a second time meanwhile.
        run.delivered, run.touched_ms = True, self._desk.now_ms()
        if run.order.number > 1 and (yield from self._is_for_another(run)):
            yield from self._crew.pass_on(run)
            return NO_WORK
        try:
            compiled = compile_run(self._compilers, run, pull=True)
        except Malformed as error:
            yield from self._crew.failed(run, Cause.UNSTARTABLE, str(error))
            return NO_WORK
        options = {
            "task_id": run.ticket,
            "job_id": run.order.job_number,
            "task_parser": compiled.parser,
            "settings": compiled.settings,
            "type": run.order.app,
            "task_command": compiled.command,
        }
        return told(200, {"options": options, "files": {"jobfiles": _JOB_FILES}})

    def _goes_on(self, run: Run) -> Steps:
        card = run.card
        if not (yield from self._crew.progress(run)):
            return told(403, CANCELLED)
        if run.stopping or run.taken_back:
            run.told = True
            return told(403, CANCELLED)
        if card.disabled:
            run.told = True
            return told(403, DISABLED)
        return NOTHING

    def _ends(self, run: Run, word: FlamencoTask, form: Form) -> Steps:
        happening = HAPPENING[word]
        message = ""
        result: bytes | None = None
        if happening is Happening.COMPLETED:
            run.card.failures.pop(run.order.app, None)
            produced = form.files.get("taskfile", b"")
            if produced and self._shelf is not None:
                name, shelf = output_name(run.order.task_id), self._shelf
                yield Apart(lambda: shelf.save(name, produced))
                if not run.pictured:
                    # Its own reader of logs does not know how its program words what it saved.
                    picture = picture_name(run.order.job_id)
                    yield Apart(lambda: shelf.save_picture(picture, produced))
            result = msgspec.json.encode(
                {
                    "activity": msgspec.json.decode(activity_text(run.activity)),
                    "time_cost_s": run.time_cost_s,
                    "output_bytes": len(produced),
                }
            )
        elif run.stopping or run.told:
            happening, message = Happening.STOPPED, "it was stopped"
        if happening is Happening.FAILED:
            taken = yield from self._crew.failed(run, Cause.EXIT, _last_words(form, word))
        else:
            taken = yield from self._crew.end(run, happening, message=message, result=result)
        return NOTHING if taken else told(403, CANCELLED)

    def _is_for_another(self, run: Run) -> Generator[Ask, Any, bool]:
        """Whether the worker failed at this task before, and one that did not is free for it."""
        task = yield GetTask(run.order.task_id)
        tried = {
            attempt.worker
            for attempt in task.attempts
            if attempt.status is AttemptStatus.FAILED and attempt.cause is not Cause.LOST
        }
        free = (
            other.name
            for other in self._crew.others(run.card, run.order.app)
            if other.run is None and other.name not in tried
        )
        return run.card.name in tried and next(free, None) is not None


def output_name(task_id: str) -> str:
    """What a worker sent back of a task, as a file on the shelf."""
    return f"output-{task_id}.zip"


def picture_name(job_id: str) -> str:
    """The last picture of a job, as a file on the shelf."""
    return f"picture-{job_id}"


def _last_words(form: Form, word: FlamencoTask) -> str:
    lines = form.text("log").strip().splitlines()
    said = lines[-1][:200] if lines else "it said nothing"
    killed = word is FlamencoTask.ABORTED
    return f"its program was killed: {said}" if killed else said
