"""
TANGO's Project Manager: its interface over pipelines of ours. Pure.

Source: the TANGO REST guide (``status_report``), and what the running Project Manager was measured to send and answer
(``/api/container_start``, ``container_stop``, ``status_request``, ``set_workflow``).

A report has nothing that fences it: no number of a run, and no name of its sender that could be proven. So it is a hint. It has the
container asked how it is, and only the answer counts; a late, repeated or forged report changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

import msgspec

from orchestra.dialects.asks import Ask, Dialogue
from orchestra.dialects.flamenco_forms import read_form
from orchestra.dialects.strict_json import check_json
from orchestra.dialects.tango_calls import ID_NAMES
from orchestra.dialects.tango_jobs import Ids, name_of
from orchestra.dialects.tango_options import Options, read_workflow
from orchestra.dialects.tango_pipelines import Pipelines
from orchestra.dialects.tango_places import Place, find_place
from orchestra.dialects.tango_refusals import status_of_refusal
from orchestra.dialects.tango_secrets import check_asker, check_secret
from orchestra.dialects.tango_words import ID_CHARS_MAX, REPORTED, MemberWord, ids_of
from orchestra.dialects.wire import Dialect, Role, Route, WireRequest, WireResponse
from orchestra.errors import Conflict, Malformed, NotFound, OrchestraError
from orchestra.statemachine.values import value

NAME = "tango"
PORT_HOSTS = ("0.0.0.0", "projectmanager", "project_manager")  # noqa: S104 - values of Host, not addresses
"""What containers call their manager, as measured."""

Nudge = Callable[[str, Ids], bool]
"""Has a container asked how the run of these ids is; whether one is alive there."""


@value
class Told:
    """An answer before it is on the wire."""

    fields: Mapping[str, object]
    media_type: str = "application/json"


class Calls:
    """What is answered to each call."""

    def __init__(self, options: Options, nudge: Nudge) -> None:
        self._options = options
        self._nudge = nudge
        self._pipelines = Pipelines(options)

    def report(self, request: WireRequest) -> Ask:
        """``status_report`` by its path."""
        check_asker(request)
        return Dialogue(lambda: self._report(request))

    def any(self, request: WireRequest) -> Ask:
        """``status_report`` as an argument without a value: the guide's form."""
        if "status_report" not in request.query:
            raise NotFound("no such call", where="query")
        return self.report(request)

    def start(self, request: WireRequest) -> Ask:
        """``container_start``."""
        return Dialogue(lambda: self._start(request))

    def stop(self, request: WireRequest) -> Ask:
        """``container_stop``."""
        return Dialogue(lambda: self._stop(request))

    def status(self, request: WireRequest) -> Ask:
        """``status_request``."""
        return Dialogue(lambda: self._status(request))

    def set_workflow(self, request: WireRequest) -> Ask:
        """``set_workflow``."""
        return Dialogue(lambda: self._set_workflow(request))

    def _report(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        query = request.query
        place = self._place(query)
        check_secret(request, place.secret)
        ids = _both(ids_of(request))
        status = query.get("status", "").strip('"')
        end = REPORTED.get(status)
        if end is None:
            remedy = f"one of {', '.join(REPORTED)}"
            raise Malformed("is no word for an end", where="status", remedy=remedy)
        word = yield from self._pipelines.word(ids, place.container_id)
        if word in (MemberWord.STARTED, MemberWord.RUNNING):
            self._nudge(place.container_id, ids)
        elif word is not end:
            told = f"{place.container_id} is {word} here"
            raise Conflict(f"{told}: the report changes nothing", where="status")
        return Told({"status": 200}, "text/html")

    def _start(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        fields = read_form(request).fields
        place, ids = self._place(fields), _ids(fields)
        accepted = yield from self._pipelines.start(ids, place.container_id)
        verb = "runs already" if accepted.repeated else "is started"
        message = f"{place.container_id} {verb}\n"
        response = f"Project Manager --> {place.host}:{place.port}\njob {accepted.number}\n"
        return Told({"status": 200, "message": message, "response": response})

    def _stop(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        fields = read_form(request).fields
        place, ids = self._place(fields), _ids(fields)
        yield from self._pipelines.stop(ids, place.container_id)
        message = f"{place.container_id} is asked to stop\n"
        return Told({"status": 200, "message": message, "response": message})

    def _status(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        ids = _ids(read_form(request).fields)
        try:
            shown = yield from self._pipelines.shown(ids)
        except NotFound:
            workflow = yield from self._pipelines.workflow(ids)
            first = next(iter(workflow))
            return Told(
                {"container": first, "container_status": "", "message": "", "containers": {}}
            )
        words = {name: str(word) for name, word in shown.words.items()}
        fields = {"container": shown.container_id, "container_status": str(shown.word)}
        return Told({**fields, "message": shown.message, "containers": words})

    def _set_workflow(self, request: WireRequest) -> Generator[Ask, Any, Told]:
        check_json(request.body)
        try:
            given: object = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Malformed("the body is no JSON", where="body") from None
        if not isinstance(given, dict):
            raise Malformed("the body is no JSON object", where="body")
        fields = cast("dict[str, object]", given)
        project_id = fields.get("project_id")
        if isinstance(project_id, int) and not isinstance(project_id, bool):
            project_id = str(project_id)
        user_id = fields.get("user_id", "")
        if not isinstance(project_id, str) or not project_id:
            raise Malformed("is missing", where="project_id")
        if not isinstance(user_id, str):
            raise Malformed("is no text", where="user_id")
        ids = (user_id, project_id)
        _checked((user_id or "any", project_id))
        workflow = read_workflow(fields.get("workflow"), self._options.names, "workflow")
        yield from self._pipelines.set_workflow(ids, workflow)
        number = int(project_id) if project_id.isascii() and project_id.isdigit() else project_id
        rows = [
            {"id": n + 1, "workflow_name": name, "order": n, "project_id": number, "after": before}
            for n, (name, before) in enumerate(workflow.items())
        ]
        return Told({"status": 200, "workflow": rows})

    def _place(self, fields: Mapping[str, str]) -> Place:
        container_id = fields.get("container_id", "").strip('"')
        if not container_id:
            raise Malformed("is missing", where="container_id")
        place = find_place(self._options.names, container_id)
        if place is None:
            told = "no such container is declared"
            there = ", ".join(self._options.places)
            raise NotFound(told, where="container_id", remedy=f"there is: {there}")
        return place


def _ids(fields: Mapping[str, str]) -> Ids:
    found: list[str] = []
    for name in ID_NAMES:
        text = fields.get(name, "").strip('"')
        if len(text) > ID_CHARS_MAX:
            raise Malformed(f"must be at most {ID_CHARS_MAX} characters", where=name)
        found.append(text)
    return _both((found[0], found[1]))


def _both(ids: Ids) -> Ids:
    for name, text in zip(ID_NAMES, ids, strict=True):
        if not text:
            raise Malformed("is missing or empty", where=name)
    return _checked(ids)


def _checked(ids: Ids) -> Ids:
    """Ids become parts of paths and addresses at the members. Raises `Malformed` when they are unfit."""
    for name, text in zip(ID_NAMES, ids, strict=True):
        if not text.isprintable() or text[0] in "-." or any(c in '/\\"' for c in text):
            raise Malformed("is no plain name", where=name)
    name_of(ids)
    return ids


def manager(options: Options, nudge: Nudge) -> Dialect:
    """
    The Project Manager's interface.

    A report needs no token where every container has a secret of its own; else it needs one wherever the server asks for tokens.

    Args:
        options: Members and workflows.
        nudge: Has a member asked how a run is.
    """
    calls = Calls(options, nudge)
    secrets = all(place.secret for place in options.places.values())
    reporter = Role.ANYONE if secrets else Role.WORKER

    def report(name: str, path: str, ask: Callable[[WireRequest], Ask]) -> Route:
        summary = "A container tells that its task has ended"
        return Route(name, "GET", path, ask, _encode, reporter, summary=summary, media_types=())

    def call(name: str, path: str, ask: Callable[[WireRequest], Ask], summary: str) -> Route:
        role = Role.VIEWER if name == "StatusRequest" else Role.OPERATOR
        media = ("application/json",) if name == "SetWorkflow" else ()
        return Route(
            name,
            "POST",
            f"/api/{path}",
            ask,
            _encode,
            role,
            64 * 1024,
            summary=summary,
            media_types=media,
        )

    routes = (
        report("StatusReport", "/status_report", calls.report),
        report("StatusReportSlash", "/status_report/", calls.report),
        report("AnyReport", "/", calls.any),
        call("ContainerStart", "container_start", calls.start, "Start a container of a project"),
        call("ContainerStop", "container_stop", calls.stop, "Stop it"),
        call("StatusRequest", "status_request", calls.status, "Where a project is"),
        call("SetWorkflow", "set_workflow", calls.set_workflow, "Give a project a workflow"),
    )
    named = tuple(place.host for place in options.places.values())
    return Dialect(NAME, routes, refuse, hosts=(*PORT_HOSTS, *named))


def _encode(_: WireRequest, answer: object) -> WireResponse:
    told = cast("Told", answer)
    return WireResponse(200, msgspec.json.encode(dict(told.fields)), told.media_type)


def refuse(error: OrchestraError) -> WireResponse:
    """The status of HTTP, where the original says 200 with the text of an exception, and what is wrong in the fields that it uses."""
    status, headers = status_of_refusal(error)
    body = msgspec.json.encode({"status": status, "message": str(error)})
    return WireResponse(status, body, headers=headers)
