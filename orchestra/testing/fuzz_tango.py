"""HTTP requests to TANGO's Project Manager and to a member container, as surfaces: valid calls, and worlds in which something runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from orchestra.config import DialectPort
from orchestra.dialects.asks import Ask
from orchestra.dialects.far_calls import FarCall
from orchestra.dialects.tango_calls import Replies
from orchestra.dialects.tango_jobs import Ids
from orchestra.dialects.tango_manager import manager
from orchestra.dialects.tango_member import Member, RegisteredTask, member
from orchestra.dialects.tango_options import read_options
from orchestra.dialects.wire import Dialect
from orchestra.ports import LogRead
from orchestra.statemachine.lifecycles import TaskStatus
from orchestra.statemachine.queries import GetTask
from orchestra.statemachine.replies import Order
from orchestra.statemachine.reports import Happening
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_answers import at_once
from orchestra.testing.fuzz_dialects import FORM, call_of, in_every_form, request_of
from orchestra.testing.fuzz_worlds import REFUSAL, HttpWorld, Small, stepped
from orchestra.transports.asking import put

SECRET = "0123456789abcdef"  # noqa: S105 - of containers that exist in this file alone
SECRET_LINE = f"X-Tango-Secret: {SECRET}\r\n"
SLOTS = 100
"""More than one world is fed with: whatever is started runs."""

IDS = {"user_id": "kyunghee", "project_id": "1"}
QUERY = "user_id=kyunghee&project_id=1"
QUOTED = 'user_id="kyunghee"&project_id="1"'

TABLE = {
    "members": {
        "bms": "127.0.0.1:8100",
        "autonn": {"address": "127.0.0.1:8200", "resumes": 2},
        "code_gen": {"address": "127.0.0.1:8300", "secret": SECRET},
        "ondevice_deploy": {"address": "127.0.0.1:8400", "aliases": ["imagedeploy"]},
    },
    "workflow": ["bms", "autonn", "code_gen", "ondevice_deploy"],
    "projects": {"kyunghee/9": {"code_gen": [], "bms": ["code_gen"]}},
}

PIPELINE_CALLS = (
    call_of("POST /api/container_start", **IDS, container_id="bms"),
    call_of("POST /api/container_start", **{**IDS, "project_id": "2"}, container_id="autonn"),
    call_of("POST /api/container_start", **{**IDS, "project_id": "9"}, container_id="codeGen"),
    call_of("POST /api/container_stop", **IDS, container_id="bms"),
    call_of("POST /api/status_request", **IDS),
    call_of("POST /api/status_request", user_id="nobody", project_id="3"),
)

WORKFLOWS: tuple[object, ...] = (
    {**IDS, "workflow": ["bms", "code_gen"]},
    {"project_id": 7, "workflow": {"bms": [], "autonn": ["bms"], "imagedeploy": ["bms", "autonn"]}},
)

REPORTS = (
    f"/status_report?container_id=bms&{QUERY}&status=success",
    f"/status_report/?container_id=bms&{QUERY}&status=failed",
    f'/?status_report&container_id="bms"&{QUOTED}&status="success"',
)

MEMBER_CALLS = (
    f"/start?{QUERY}",
    "/start?user_id=kyunghee&project_id=2",
    "/?start&project_id=4&user_id=%EC%9D%B4",
    f"/?start&{QUOTED}",
    f"/stop?{QUERY}",
    f"/?stop&{QUOTED}",
    f"/status_request?{QUERY}",
    f"/?status_request&{QUOTED}",
    "/status_request?user_id=&project_id=",
)
FAILED_RUN = "user_id=kyunghee&project_id=3"


class Crew(Small):
    """
    The small world with a worker for what a dialect has run, whose tasks have written nothing.

    Args:
        app: What it can run.
        labels: What it has.
    """

    def __init__(self, app: str, labels: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.app = app
        self._begun: set[str] = set()
        self.core.join("crew", slots=SLOTS, apps=(app,), labels=labels)

    async def log(self, query: object) -> LogRead:
        """Nothing was written."""
        del query
        return LogRead(b"", 0)

    def carry_out(self, ask: Ask) -> object:
        """What is answered to something that a dialect asks. Raises what `transports.asking.put` raises."""
        return stepped(put(self.for_principal("crew"), at_once(ask)))

    def held(self) -> list[Order]:
        """What the crew has to do, oldest first."""
        self.core.settle()
        return [order for order in self.core.held() if order.app == self.app]

    def tell(self, happening: Happening) -> None:
        """The crew says this of all that it has."""
        for order in self.held():
            ignored = self.core.report(order.attempt_id, happening)
            if ignored:
                raise FuzzBroken(f"{happening} is ignored: {ignored}")
        self.core.settle()

    def work(self) -> None:
        """What is to be stopped is over, what is new runs, and what ran is done."""
        for order in self.held():
            self.look_at(order)
            happening = Happening.RUNNING
            if self.core.ask(GetTask(order.task_id)).status is TaskStatus.CANCELLING:
                happening = Happening.STOPPED
            elif order.attempt_id in self._begun:
                happening = Happening.COMPLETED
            self._begun.add(order.attempt_id)
            self.core.report(order.attempt_id, happening)
        self.core.settle()

    def look_at(self, order: Order) -> None:
        """Raises `FuzzBroken` for an order that nobody may be given."""


class PipelineWorld(HttpWorld):
    """Requests to a Project Manager, one of whose containers is at work."""

    def __init__(self) -> None:
        labels = tuple(f"member:{name}" for name in TABLE["members"])
        crew = self._crew = Crew("member", labels)
        super().__init__(_pipelines, small=crew)
        self.call("POST", "/api/container_start", PIPELINE_CALLS[0].body, FORM)
        crew.tell(Happening.RUNNING)

    def feed(self, raw: bytes) -> bool:
        """As `HttpWorld.feed`; then the containers go on."""
        taken = super().feed(raw)
        self._crew.work()
        return taken


def _pipelines(_: Small) -> Dialect:
    def nudge(container_id: str, ids: Ids) -> bool:
        return bool(container_id and ids)

    return manager(read_options(DialectPort("tango", None, TABLE)), nudge)


def pipeline_requests() -> Sequence[bytes]:
    """The corpus."""
    found = [request_of("GET", target, more=SECRET_LINE) for target in REPORTS]
    found += in_every_form(PIPELINE_CALLS)
    bodies = (json.dumps(each).encode() for each in WORKFLOWS)
    found += [request_of("POST", "/api/set_workflow", body, "application/json") for body in bodies]
    return found


class _NoTasks:
    """A program has no tasks."""

    tasks: Mapping[str, RegisteredTask] = MappingProxyType({})


def container(replies: Replies, secret: str = "") -> Member:
    """A member container that runs a program, and reports to a Project Manager."""
    return member(
        _NoTasks(),
        container_id="code_gen",
        argv=("generate", "--project={user_id}/{project_id}"),
        manager="127.0.0.1:8085",
        replies=replies,
        secret=secret,
    )


class _Replying(HttpWorld):
    """Requests to a member container that replies in one way: one of its runs is at work, and one has failed."""

    _NO = frozenset({b"error", b'"error"', b'"failed"', b'""'})

    def __init__(self, replies: Replies) -> None:
        crew = self._crew = Crew("process")
        made = container(replies, SECRET if replies is Replies.GUIDE else "")
        super().__init__(lambda small: _served(made, small), small=crew)
        for ids, happening in ((FAILED_RUN, Happening.FAILED), (QUERY, Happening.RUNNING)):
            super().feed(request_of("GET", f"/start?{ids}", more=SECRET_LINE))
            crew.tell(happening)

    def feed(self, raw: bytes) -> bool:
        """As `HttpWorld.feed`; then the program goes on."""
        taken = super().feed(raw)
        self._crew.work()
        return taken

    def is_refusal(self, status: int, answer: bytes) -> bool:
        """As `HttpWorld.is_refusal`: the guide has every answer come with status 200."""
        return status >= REFUSAL or answer in self._NO


def _served(made: Member, small: Small) -> Dialect:
    def nobody(calls: Sequence[FarCall]) -> tuple[None, ...]:
        return (None,) * len(calls)

    return made.dialect(lambda: small.core.now_ms, nobody)


class MemberWorld:
    """Requests to a member container. The first byte of an input says in which of the three ways it replies."""

    def __init__(self) -> None:
        self._ways = [_Replying(replies) for replies in Replies]

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`."""
        way = (raw[0] if raw else 0) % len(self._ways)
        return self._ways[way].feed(raw[1:])


def member_requests() -> Sequence[bytes]:
    """The corpus."""
    found: list[bytes] = []
    for way, replies in enumerate(Replies):
        calls = MEMBER_CALLS
        if replies is Replies.AUTONN:
            calls = (*calls, f"/resume?{FAILED_RUN}", f"/?resume&{FAILED_RUN}")
        found += [b"%d" % way + request_of("GET", each, more=SECRET_LINE) for each in calls]
    return found
