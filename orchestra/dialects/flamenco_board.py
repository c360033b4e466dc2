"""
What people and Flamenco's server and dashboard ask a manager: post a task, list, stop, start, disable a worker, read settings.

A posted task is a job of the core: its chunks are the tasks. All jobs are listed, whatever wire they came by.

Source: Flamenco's Manager API document; for jobs and projects what the server of 2015 answered to its dashboard.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import attrs
import msgspec

from orchestra.dialects.asks import Apart, Ask, Keyed
from orchestra.dialects.far_calls import CallAll, FarCall
from orchestra.dialects.flamenco_compilers import Compilers
from orchestra.dialects.flamenco_crew import DISABLED_REASON, Crew, Steps
from orchestra.dialects.flamenco_forms import MISSING, NUMBER_MAX, Form, whole
from orchestra.dialects.flamenco_listing import (
    NO_VITALS,
    Fields,
    by_hostname,
    job_fields,
    posted_fields,
    read_vitals,
    tasks_of_jobs,
    worker_fields,
)
from orchestra.dialects.flamenco_options import Options
from orchestra.dialects.flamenco_posted import Posted, read_posted, write_posted
from orchestra.dialects.flamenco_pull import Shelf, picture_name
from orchestra.dialects.flamenco_replies import told
from orchestra.dialects.flamenco_requeue import tried_again
from orchestra.dialects.wire import WireResponse
from orchestra.errors import Conflict, Forbidden, Malformed, NotFound
from orchestra.statemachine import limits
from orchestra.statemachine.commands import (
    CancelJob,
    PauseJob,
    PauseWorker,
    ResumeJob,
    ResumeWorker,
    SubmitJob,
)
from orchestra.statemachine.ids import number_of
from orchestra.statemachine.lifecycles import JOB_FINAL, WorkerStatus
from orchestra.statemachine.queries import GetJob, ListJobs, ListProjects, ListTasks, ListWorkers
from orchestra.statemachine.replies import JobView, WorkerView

PROJECT = "flamenco"
JOBS_SHOWN = 100
"""A list shows the newest jobs, as many as one page of a dashboard."""

JOBS_WITH_TASKS = 20
"""Of so many jobs the tasks are listed, when nobody asks for those of one."""

JOBS_A_COMMAND = 100
SETTINGS_MAX = 64
SETTING_CHARS_MAX = 4_096
EMPTY_ZIP = b"PK\x05\x06" + bytes(18)
"""A worker begins nothing before it has unpacked a file of the job: one without entries will do."""

_PAGES_MAX = 1_000
SETTING_NAME_CHARS_MAX = 80
_COMMANDS: Mapping[str, str] = {
    "start": "running",
    "stop": "stopped",
    "pause": "stopped",
    "cancel": "stopped",
    "reset": "reset",
    "requeue": "reset",
    "respawn": "respawned",
}
"""What can be asked of a job, and the word for it then."""


class Board:
    """The calls of everybody but workers. Each gives the steps of a dialogue that ends with a `WireResponse`."""

    def __init__(
        self,
        crew: Crew,
        options: Options,
        compilers: Compilers,
        shelf: Shelf | None,
        call_all: CallAll,
    ) -> None:
        self._crew = crew
        self._call_all = call_all
        self._desk = crew.desk
        self._options = options
        self._compilers = compilers
        self._shelf = shelf
        self._settings: dict[str, str] = {}

    # tasks ----------------------------------------------------------------------------------------------------------

    def post(self, form: Form) -> Steps:
        """Take a task: 202. The same task again is the same job."""
        number = form.number("task_id", None, 0, NUMBER_MAX) or 0
        priority = form.number("priority", 0, -limits.PRIORITY_MAX, limits.PRIORITY_MAX) or 0
        if "type" not in form.fields:
            raise Malformed(MISSING, where="type")
        compiler = self._compilers.named(form.text("type", chars_max=200))
        text = form.text("settings", "{}")
        settings = compiler.read(text)
        parser = form.text("parser", form.text("task_parser", compiler.name), chars_max=200)
        tags = tuple(sorted({tag for tag in form.text("tags", chars_max=4_096).split(",") if tag}))
        jobfile = yield from self._take_file(number, form)
        raw = msgspec.json.decode(text or "{}", type=dict[str, object])
        template = write_posted(Posted(number, compiler.name, parser, raw, jobfile))
        retries, labels = self._options.failures_max - 1, tuple(f"tag:{tag}" for tag in tags)
        stages = tuple(
            attrs.evolve(stage, template=template, retries=retries, labels=labels)
            for stage in compiler.stages(settings)
        )
        job = SubmitJob(f"task {number}", stages, project=PROJECT, priority=priority)
        accepted = yield Keyed(job, f"flamenco-task-{number}")
        if self._options.exact:
            return told(202, posted_fields() | {"priority": priority})
        view = yield GetJob(accepted.job_id)
        page = yield ListTasks(accepted.job_id, limit=1)
        card = self._desk.cards.get(page.items[0].worker) if page.items else None
        worker_id = number_of(card.id) if card is not None and card.id else 0
        frames = compiler.frames(settings)
        return told(202, posted_fields(view, number, frames, worker_id))

    def delete(self, numbers: list[int]) -> Generator[Ask, Any, None]:
        """Stop tasks by the numbers that they were posted with; unknown ones are passed over."""
        for job in (yield from self._posted_jobs(set(numbers))).values():
            if job.status not in JOB_FINAL:
                yield from self._cancel(job)

    def tasks(self, job: str) -> Steps:
        """The tasks of one job, or of the newest."""
        if job:
            one = yield GetJob(str(whole(job, "job_id", 0, NUMBER_MAX)))
            return told(200, (yield from tasks_of_jobs((one,))))
        newest = yield ListJobs(limit=JOBS_WITH_TASKS)
        return told(200, (yield from tasks_of_jobs(newest.items)))

    # jobs -----------------------------------------------------------------------------------------------------------

    def jobs(self) -> Steps:
        """The newest jobs by their numbers."""
        page = yield ListJobs(limit=JOBS_SHOWN)
        return told(200, {str(job.number): job_fields(job) for job in page.items})

    def job(self, number: int) -> Steps:
        """One job."""
        job = yield GetJob(str(number))
        return told(200, job_fields(job))

    def command(self, form: Form) -> Steps:
        """Start, stop, pause, reset or cancel jobs: 200 with their numbers and what they are then, 404 when one is unknown."""
        numbers = read_numbers(form.text("id", chars_max=4_096))
        word = form.text("command", chars_max=32)
        if word not in _COMMANDS:
            known = ", ".join(sorted(_COMMANDS))
            raise Malformed("Unknown command.", where="command", remedy=f"it is {known}")
        jobs: dict[int, JobView] = {}
        for number in numbers:
            jobs[number] = yield GetJob(str(number))
        for job in jobs.values():
            yield from self._command(job, word)
        return told(200, {"id": numbers, "command": word, "status": _COMMANDS[word]})

    def projects(self) -> Steps:
        """The projects by their numbers."""
        page = yield ListProjects(limit=JOBS_SHOWN)
        return told(
            200,
            {
                str(each.number): {"id": each.number, "name": each.name, "status": each.status}
                for each in page.items
            },
        )

    def picture(self, number: int) -> Steps:
        """The last picture of a job: 404 when there is none."""
        job = yield GetJob(str(number))
        shelf = self._shelf
        found = None
        if shelf is not None:
            found = yield Apart(lambda: shelf.read(picture_name(job.id)))
        if not found:
            raise NotFound("there is no picture of this job", where="job_id")
        return WireResponse(200, found, _kind(found))

    def file(self, number: int, name: str) -> Steps:
        """What a worker fetches before it begins. Files of support may be missing: they are empty then."""
        job = yield GetJob(str(number))
        if name == f"jobsupportfile_{number}.zip":
            return WireResponse(200, EMPTY_ZIP, "application/zip")
        posted = read_posted(job.stages[0].template) if job.stages else None
        shelf = self._shelf
        if name != f"jobfile_{number}.zip" or posted is None:
            raise NotFound("there is no such file", where="name")
        if not posted.jobfile:
            return WireResponse(200, EMPTY_ZIP, "application/zip")
        found = None
        if shelf is not None:
            found = yield Apart(lambda: shelf.read(posted.jobfile))
        if found is None:
            raise NotFound("the file of this job is gone", where="name")
        return WireResponse(200, found, "application/zip")

    def has_file(self, number: int) -> Steps:
        """Whether a job brought files along."""
        try:
            job = yield GetJob(str(number))
        except NotFound:
            return told(200, {"file": False})
        posted = read_posted(job.stages[0].template) if job.stages else None
        return told(200, {"file": posted is not None and posted.jobfile != ""})

    # workers --------------------------------------------------------------------------------------------------------

    def workers(self) -> Steps:
        """All workers by their host names; several of one name get their address behind it."""
        found = yield from self._workers()
        rows = [(worker, worker_fields(worker, self._desk)) for worker in found]
        return told(200, by_hostname(rows))

    def worker(self, number: int) -> Steps:
        """What machine a worker is; what it does is in the list."""
        worker = yield from self._worker(number)
        fields = worker_fields(worker, self._desk)
        if fields["connection"] == "offline":
            return told(200, {"connection": "offline"})
        card = self._desk.cards.get(worker.name)
        asked: Fields = {}
        if card is not None and card.visited:
            call = FarCall(card.ip, card.port, "GET", "/run_info")
            (reply,) = yield Apart(lambda: self._call_all((call,)))
            if reply is None:
                return told(200, {"connection": "offline"})
            asked = read_vitals(reply)
        named = {name: fields[name] for name in ("hostname", "system")}
        return told(200, {**named, **NO_VITALS, **asked})

    def rest(self, number: int, form: Form) -> Steps:
        """What a worker says of itself: its status is what this manager knows, so it is told that, and its task as the document says."""
        form.text("status", chars_max=32)
        worker = yield from self._worker(number)
        fields = worker_fields(worker, self._desk)
        if self._options.exact:
            return told(200, {"status": fields["status"]})
        task = fields["current_task"]
        return told(200, {"status": fields["status"], "task_id": task and int(str(task))})

    def enable(self, number: int, form: Form) -> Steps:
        """Disable a worker, which ends what it runs and runs it elsewhere, or enable it again, for every kind of task."""
        word = form.text("status", chars_max=32)
        if word not in ("enabled", "disabled"):
            raise Malformed("it is enabled or disabled", where="status")
        worker = yield from self._worker(number)
        disabled = word == "disabled"
        if disabled:
            yield PauseWorker(worker.id, DISABLED_REASON)
        else:
            yield ResumeWorker(worker.id)
        card = self._desk.cards.get(worker.name)
        if card is not None:
            card.disabled = card.paused = disabled
            if not disabled and card.blocked:
                card.blocked = ()
                yield from self._crew.join(card)
        return told(200, {"task_id": None})

    # settings -------------------------------------------------------------------------------------------------------

    def settings(self, group: str) -> Steps:
        """How many workers there are, and what was set; of the group ``render`` the files of settings that a render may name."""
        if group == "render":
            return told(200, sorted(self._options.render_settings))
        found = yield from self._workers()
        return told(200, {"uuid": PROJECT, "total_workers": str(len(found))} | self._settings)

    def setting(self, name: str) -> WireResponse:
        """The programs of a type of task, as the operator has written them; else what was set under the name."""
        programs = self._options.commands.get(name)
        if programs is None and name in self._compilers.by_kind:
            programs = self._options.commands.get(self._compilers.by_kind[name].name)
        if programs is not None:
            return told(200, {"commands": {"default": programs}})
        return told(200, {"value": self._settings[name]} if name in self._settings else {})

    def set(self, fields: dict[str, str]) -> None:
        """Keep settings until the next start. Raises `Forbidden` for programs: those come from the operator's file alone."""
        for name, value in fields.items():
            if name in self._compilers.by_kind or "command" in name or "path" in name:
                told_why = "programs and paths are not set over the wire"
                raise Forbidden(told_why, where=name[:80], remedy="set it in orchestra.toml")
            fits = len(value) <= SETTING_CHARS_MAX and len(name) <= SETTING_NAME_CHARS_MAX
            if not fits or not name.isidentifier():
                raise Malformed("is no setting", where=name[:80])
        if len(self._settings.keys() | fields.keys()) > SETTINGS_MAX:
            raise Malformed(f"there are more than {SETTINGS_MAX} settings", where="settings")
        self._settings |= fields

    # below ----------------------------------------------------------------------------------------------------------

    def _take_file(self, number: int, form: Form) -> Generator[Ask, Any, str]:
        content, shelf = form.files.get("jobfile"), self._shelf
        if content is None:
            return ""
        if shelf is None:
            remedy = "give the option storage"
            raise Forbidden("this manager keeps no files", where="jobfile", remedy=remedy)
        name = f"jobfile-{number}.zip"
        yield Apart(lambda: shelf.save(name, content))
        return name

    def _posted_jobs(self, numbers: set[int]) -> Generator[Ask, Any, dict[str, JobView]]:
        wanted = {f"task {number}" for number in numbers}
        found: dict[str, JobView] = {}
        after = ""
        for _ in range(_PAGES_MAX):
            page = yield ListJobs(project=PROJECT, after=after, limit=limits.PAGE_MAX)
            for job in page.items:
                if job.name in wanted:
                    found.setdefault(job.name, job)
            after = page.next
            if not after or len(found) == len(wanted):
                break
        return found

    def _cancel(self, job: JobView) -> Steps:
        try:
            yield CancelJob(job.id, reason="stopped in Flamenco")
        except Conflict:
            return  # It ended in between, which is what was asked for.

    def _command(self, job: JobView, word: str) -> Steps:
        runs = [run for run in self._desk.runs.values() if run.order.job_id == job.id]
        for run in runs:
            run.taken_back = word == "stop"
        if word == "cancel":
            if job.status not in JOB_FINAL:
                yield from self._cancel(job)
        elif word in ("stop", "pause"):
            if job.status in JOB_FINAL:
                return
            yield PauseJob(job.id, "stopped in Flamenco")
        else:
            if word != "start":
                yield from tried_again(job)
            try:
                yield ResumeJob(job.id)
            except Conflict:
                return  # It runs, or has ended: nothing holds it.

    def _workers(self) -> Generator[Ask, Any, list[WorkerView]]:
        yield from self._crew.open()
        found: list[WorkerView] = []
        after = ""
        for _ in range(_PAGES_MAX):
            page = yield ListWorkers(after=after, limit=limits.PAGE_MAX)
            found += [each for each in page.items if each.status is not WorkerStatus.REPLACED]
            after = page.next
            if not after:
                break
        return found

    def _worker(self, number: int) -> Generator[Ask, Any, WorkerView]:
        for worker in (yield from self._workers()):
            if worker.number == number:
                return worker
        told_why = f"Not Found. You have requested this URI [/workers/{number}]"
        raise NotFound(told_why, where="worker")


def read_numbers(text: str) -> list[int]:
    """Whole numbers, separated by commas. Raises `Malformed`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or len(words) > JOBS_A_COMMAND:
        raise Malformed(f"it is 1 to {JOBS_A_COMMAND} numbers", where="id")
    return [whole(word, "id", 0, NUMBER_MAX) for word in words]


def _kind(picture: bytes) -> str:
    if picture.startswith(b"\x89PNG\r\n"):
        return "image/png"
    return "image/jpeg" if picture.startswith(b"\xff\xd8\xff") else "application/octet-stream"
