"""
The worker's side of the push protocol (2015-02): it registers, and its manager calls it. Pure.

Source: what the running program of 2015-02-25 answers at its port; what comes as ``GET /workers/1`` of Flamenco's Manager API document
is its ``/run_info``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from http import HTTPStatus
from typing import Any, cast

from orchestra.dialects.asks import Apart, Ask, Dialogue, Known
from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.flamenco_forms import path_number, read_form, whole
from orchestra.dialects.flamenco_parsers import Activity, activity_text
from orchestra.dialects.flamenco_replies import told
from orchestra.dialects.flamenco_words import FlamencoWorker
from orchestra.dialects.flamenco_worker_options import WorkerOptions
from orchestra.dialects.flamenco_worker_programs import read_command
from orchestra.dialects.flamenco_worker_pull import said
from orchestra.dialects.flamenco_worker_reports import Reports, Surroundings, Vitals
from orchestra.dialects.flamenco_worker_runs import Given, Runs, Steps
from orchestra.dialects.wire import Role, Route, WireRequest, WireResponse
from orchestra.errors import Conflict, Forbidden, Rejected, Unavailable

UNHEARD_MS = 60_000
"""A manager calls every 10 s. From one that did not call six times over the worker is unknown: it registers again."""

TICKET_MAX = 2**63 - 1
BUSY = WireResponse(500, b"{error:Processus failed}", "text/html; charset=utf-8")
IDLE = WireResponse(500, b"nothing runs", "text/html; charset=utf-8")


class Push:
    """One worker that is called."""

    def __init__(
        self, options: WorkerOptions, surroundings: Surroundings, runs: Runs, reports: Reports
    ) -> None:
        self._options = options
        self._around = surroundings
        self._runs = runs
        self._reports = reports
        self._heard_ms: int | None = None
        self._answers = True

    def round(self) -> Steps:
        """Once a second: register, send pictures, and tell ends."""
        yield from self._runs.open()
        for run in self._runs.all():
            yield from self._runs.look(run)
            if run.picture:
                yield from self._reports.picture(run)
            if run.end is not None:
                yield from self._reports.ended(run)
        heard = self._heard_ms
        if heard is None or self._runs.now_ms() - heard >= UNHEARD_MS:
            yield from self._register()

    def _register(self) -> Steps:
        place, parcels = self._options.place, self._around.parcels
        here = place.call("GET", "/info")
        reply: FarReply | None = yield Apart(lambda: parcels.call(here))
        # Any answer will do: those of 2015 know no such address themselves.
        if reply is not None:
            me = (
                ("port", str(self._options.port)),
                ("hostname", self._hostname),
                ("system", self._around.system),
            )
            call = place.call("POST", "/workers", me)
            reply = yield Apart(lambda: parcels.call(call))
        if reply is not None and reply.status < HTTPStatus.BAD_REQUEST:
            self._answers, self._heard_ms = True, self._runs.now_ms()
        elif self._answers:
            self._answers = False
            raise Unavailable(f"the manager at {place.shown} takes no worker")

    @property
    def _hostname(self) -> str:
        return self._options.hostname or self._around.hostname

    # what is answered -----------------------------------------------------------------------------------------------

    def told(self) -> Steps:
        """How the worker is."""
        yield from self._runs.open()
        self._heard_ms = self._runs.now_ms()
        run = self._runs.current
        if run is not None:
            yield from self._runs.look(run)
        works = run is not None and run.end is None
        seconds = None if run is None else (self._runs.now_ms() - run.begun_ms) // 1_000
        activity = None if run is None or run.activity == Activity() else run.activity
        return told(
            200,
            {
                **self._names(),
                "activity": None if activity is None else activity_text(activity),
                "log": None if run is None else run.log.decode(errors="replace"),
                "time_cost": seconds,
                "status": FlamencoWorker.RENDERING if works else FlamencoWorker.ENABLED,
            },
        )

    def vitals(self) -> Steps:
        """What machine it is, and how busy."""
        found: Vitals = yield Apart(self._around.vitals)
        loads = dict(zip(("1min", "5min", "15min"), found.loads, strict=True))
        machine = {
            "worker_architecture": found.architecture,
            "worker_disk_percent": found.disk_percent,
            "worker_mem_percent": found.memory_percent,
            "worker_num_cpus": found.cpus,
        }
        often = {"load_average": loads, "worker_cpu_percent": found.cpu_percent}
        seldom = {"update_frequent": often, "update_less_frequent": machine}
        return told(200, {**self._names(), **seldom})

    def pid(self) -> Steps:
        """The process of its task; 500 when there is none."""
        run = self._runs.current
        attempt_id = "" if run is None or run.end is not None else run.attempt_id
        found = (yield Apart(lambda: self._around.pid_of(attempt_id))) if attempt_id else None
        return IDLE if found is None else told(200, {"pid": found})

    def execute(self, request: WireRequest) -> Steps:
        """Run a task: 200, also when it may not run, since then its end says so; 500 when there is one."""
        yield from self._check_caller(request)
        form = read_form(request)
        ticket = str(whole(form.text("task_id"), "task_id", 0, TICKET_MAX))
        given = Given(ticket, "", form.text("task_parser", chars_max=200), ())
        command = form.text("task_command")
        yield from self._runs.open()
        self._heard_ms = self._runs.now_ms()
        current = self._runs.current
        if current is not None and current.given.ticket == ticket and current.end is None:
            # It was sent again, since the first answer was lost.
            return BUSY if current.stopping else told(200, {"pid": 0})
        if current is not None and not current.stopping:
            return BUSY
        try:
            program, *words = read_command(command)
            argv = (self._options.programs.find(program), *words)
            self._options.programs.check(words)
        except Rejected as error:
            self._runs.refused(given, said(error))
            return told(200, {"pid": 0})
        given = Given(ticket, "", given.parser, argv)
        try:
            yield from self._runs.begin(given)
        except Conflict:
            return BUSY
        return told(200, {"pid": 0})

    def kill(self, request: WireRequest) -> Steps:
        """End the task and all that it started: 204, also when there is none."""
        yield from self._check_caller(request)
        yield from self._runs.open()
        self._heard_ms = self._runs.now_ms()
        for run in self._runs.all():
            yield from self._runs.stop(run)
        return WireResponse(204, b"")

    def _names(self) -> dict[str, object]:
        return {
            "hostname": self._hostname,
            "mac_address": self._around.mac_address,
            "system": self._around.system,
        }

    def _check_caller(self, request: WireRequest) -> Generator[Ask, Any, None]:
        """Nobody but the manager may have programs run. Raises `Forbidden`."""
        known = yield Apart(lambda: self._around.addresses_of(self._options.place.host))
        if request.client not in known and request.client not in self._options.callers:
            remedy = "callers = [...] in [dialects.flamenco-worker] names further addresses"
            raise Forbidden("this is for the worker's manager", where="client", remedy=remedy)


def push_routes(push: Push) -> tuple[Route, ...]:
    """What a called worker answers."""

    def steps(begin: Callable[[], Steps]) -> Callable[[WireRequest], Ask]:
        return lambda _: Dialogue(begin)

    def asked(begin: Callable[[WireRequest], Steps]) -> Callable[[WireRequest], Ask]:
        return lambda request: Dialogue(lambda: begin(request))

    def moved(_: WireRequest) -> Ask:
        return Known(WireResponse(302, b"", "text/html; charset=utf-8", (("location", "/info"),)))

    def command(_: WireRequest) -> Ask:
        # As the original: what runs is not told there.
        return Known(WireResponse(503, b"", "text/html; charset=utf-8"))

    def killed(request: WireRequest) -> Ask:
        # A later list of addresses has the process behind it; there is one task to kill all the same.
        path_number(request, "pid")
        return Dialogue(lambda: push.kill(request))

    def route(name: str, call: str, ask: Callable[[WireRequest], Ask], summary: str) -> Route:
        method, _, path = call.partition(" ")
        role = Role.VIEWER if method == "GET" else Role.OPERATOR
        return Route(name, method, path, ask, _encode, role, summary=summary, media_types=())

    return (
        route("Moved", "GET /", moved, "Where the worker tells how it is"),
        route("Info", "GET /info", steps(push.told), "How the worker is"),
        route("RunInfo", "GET /run_info", steps(push.vitals), "What machine it is"),
        route("Pid", "GET /pid", steps(push.pid), "The process of its task"),
        route("Command", "GET /command", command, "What it runs is not told"),
        route("ExecuteTask", "POST /execute_task", asked(push.execute), "Run a task"),
        route("Kill", "DELETE /kill", asked(push.kill), "End the task"),
        route("KillPid", "DELETE /kill/{pid}", killed, "End the task"),
    )


def _encode(_: WireRequest, answer: object) -> WireResponse:
    return cast("WireResponse", answer)
