"""The Project Manager's interface over a real core: its calls as measured, its workflows, and reports that are hints."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest

from orchestra.config import DialectPort
from orchestra.dialects.tango_manager import manager
from orchestra.dialects.tango_options import Workflow, read_options
from orchestra.dialects.tango_pipelines import PIPELINES, STAGE_WORD
from orchestra.dialects.tango_runs import Ids
from orchestra.dialects.tango_words import ALIASES, MemberWord
from orchestra.dialects.wire import Dialect
from orchestra.errors import Malformed
from orchestra.ports import Story
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine.commands import JoinWorker
from orchestra.statemachine.lifecycles import TASK, TASK_FINAL, TaskStatus
from orchestra.statemachine.queries import ListJobs
from orchestra.statemachine.records import Cause
from orchestra.statemachine.replies import Order, WorkerJoined
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.testing.check_dialect import CHECKS, Call, Check, DialectBench
from orchestra.transports.http import http_app
from tests.dialects.flamenco_kit import Everybody

pytestmark = pytest.mark.anyio

STAGES = ("bms", "autonn", "code_gen", "ondevice_deploy")
MEMBERS: Mapping[str, object] = {
    **{name: f"{name.replace('_', '-')}:8{n}00" for n, name in enumerate(STAGES)},
    "ondevice_deploy": {"address": "ondevice:8891", "aliases": ["imagedeploy"]},
    "vis2code": "viz2code:8091",
}
TABLE: Mapping[str, object] = {"members": MEMBERS, "workflow": list(STAGES)}
IDS = "user_id=kyunghee&project_id=1"
FORM = {"content-type": "application/x-www-form-urlencoded"}


def made(
    table: Mapping[str, object] = TABLE, nudged: list[tuple[str, Ids]] | None = None
) -> Dialect:
    known: list[tuple[str, Ids]] = [] if nudged is None else nudged

    def nudge(container_id: str, ids: Ids) -> bool:
        known.append((container_id, ids))
        return True

    return manager(read_options(DialectPort("tango", None, dict(table))), nudge)


class Office:
    """A Project Manager, and a worker that stands for all its members."""

    def __init__(self, orchestrator: Orchestrator, table: Mapping[str, object]) -> None:
        self.asker = orchestrator.for_principal("test")
        self.nudged: list[tuple[str, Ids]] = []
        self._orchestrator, self._table = orchestrator, table
        self._joined: WorkerJoined | None = None
        self.restart()

    def restart(self) -> None:
        """A manager that remembers nothing, over the same core."""
        self.dialect = made(self._table, self.nudged)
        self._app = http_app(self._orchestrator, [self.dialect], Everybody())

    async def send(self, method: str, target: str, **words: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self._app, client=("10.0.0.7", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://0.0.0.0:8085") as client:
            return await client.request(method, target, **words)

    async def api(self, call: str, form: str = IDS) -> dict[str, Any]:
        reply = await self.send("POST", f"/api/{call}", content=form, headers=FORM)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def start(self, container: str = "bms", ids: str = IDS) -> dict[str, Any]:
        return await self.api("container_start", f"{ids}&container_id={container}")

    async def report(self, query: str, form: str = "/status_report?") -> tuple[int, str]:
        reply = await self.send("GET", f"{form}{query}")
        return reply.status_code, reply.text

    async def words(self, ids: str = IDS) -> dict[str, str]:
        return dict((await self.api("status_request", ids))["containers"])

    async def set_workflow(self, **fields: object) -> httpx.Response:
        body = json.dumps(fields).encode()
        headers = {"content-type": "application/json"}
        return await self.send("POST", "/api/set_workflow", content=body, headers=headers)

    async def orders(self) -> list[Order]:
        if self._joined is None:
            labels = tuple(f"member:{name}" for name in MEMBERS)
            join = JoinWorker("members", "session", 20, ("member",), labels=labels)
            self._joined = await self.asker.ask(join)
        beat = Heartbeat(self._joined.worker_id, self._joined.incarnation)
        return list((await self.asker.ask(beat)).orders)

    async def tells(self, container: str, happening: Happening, **fields: Any) -> None:
        """The engine saw this in a member."""
        (order,) = [order for order in await self.orders() if order.stage == container]
        assert self._joined is not None
        told = AttemptReport(order.attempt_id, happening, **fields)
        report = AttemptsReported(self._joined.worker_id, self._joined.incarnation, (told,))
        assert not any((await self.asker.ask(report)).ignored)

    async def done(self, container: str) -> None:
        await self.tells(container, Happening.RUNNING)
        await self.tells(container, Happening.COMPLETED, result=b"null")


@asynccontextmanager
async def office(table: Mapping[str, object] = TABLE) -> AsyncGenerator[Office]:
    orchestrator = Orchestrator(MemoryStore())
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        yield Office(orchestrator, table)
        group.cancel_scope.cancel()


# the calls, as measured ---------------------------------------------------------------------------------------------


async def test_a_pipeline_goes_from_stage_to_stage() -> None:
    async with office() as pm:
        shown = await pm.api("status_request")
        assert shown == {
            "container": "bms",
            "container_status": "",
            "message": "",
            "containers": {},
        }
        started = await pm.start()
        assert started["status"] == 200
        assert started["message"] == "bms is started\n"
        assert "Project Manager --> bms:8000" in started["response"]
        for n, name in enumerate(STAGES):
            (order,) = await pm.orders()
            assert (order.stage, order.app) == (name, "member")
            assert json.loads(order.template) == {"user_id": "kyunghee", "project_id": "1"}
            assert (await pm.api("status_request"))["container"] == name
            await pm.tells(name, Happening.RUNNING)
            assert (await pm.words())[name] == "running"
            await pm.tells(name, Happening.COMPLETED, result=b"null")
            words = await pm.words()
            assert [words[each] for each in STAGES[: n + 1]] == ["completed"] * (n + 1)
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("ondevice_deploy", "completed")


@pytest.mark.parametrize("form", ["/status_report?", "/status_report/?", "/?status_report&"])
@pytest.mark.parametrize("order", [0, 1, 2])
async def test_a_report_is_a_hint(form: str, order: int) -> None:
    """It has the member asked, in whichever form it comes; by itself it changes nothing."""
    pairs = ["container_id=code_gen", "user_id=kyunghee", "project_id=1", "status=success"]
    query = "&".join(pairs[order:] + pairs[:order])
    async with office() as pm:
        await pm.start("code_gen")
        await pm.orders()
        before = await pm.asker.story(Story(limit=500))
        assert await pm.report(query, form) == (200, '{"status":200}')
        assert pm.nudged == [("code_gen", ("kyunghee", "1"))]
        assert await pm.asker.story(Story(limit=500)) == before
        await pm.done("code_gen")
        # It came again, after the member was asked.
        assert (await pm.report(query, form))[0] == 200
        assert len(pm.nudged) == 1


@pytest.mark.parametrize(("alias", "meant"), [*ALIASES.items(), ("imagedeploy", "ondevice_deploy")])
async def test_containers_by_the_names_that_programs_use(alias: str, meant: str) -> None:
    members = dict.fromkeys({*STAGES, *ALIASES.values()} - {"ondevice_deploy"}, "host:80")
    table = {"members": {**members, "ondevice_deploy": MEMBERS["ondevice_deploy"]}}
    async with office({**table, "workflow": [alias]}) as pm:
        await pm.start(alias)
        assert await pm.words() == {meant: "ready"}
        joined = await pm.asker.ask(
            JoinWorker("w", "s", 1, ("member",), labels=(f"member:{meant}",))
        )
        beat = Heartbeat(joined.worker_id, joined.incarnation)
        assert [order.stage for order in (await pm.asker.ask(beat)).orders] == [meant]
        assert (await pm.report(f"container_id={alias}&{IDS}&status=success"))[0] == 200
        assert pm.nudged == [(meant, ("kyunghee", "1"))]


async def test_a_failed_stage_ends_the_pipeline() -> None:
    async with office() as pm:
        await pm.start()
        await pm.done("bms")
        await pm.tells("autonn", Happening.FAILED, cause=Cause.ERROR, message="no gpu")
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("autonn", "failed")
        assert "no gpu" in shown["message"]
        assert shown["containers"]["code_gen"] == "failed"
        assert await pm.orders() == []
        # It can be gone on with from there.
        await pm.start("autonn")
        await pm.done("autonn")
        assert (await pm.api("status_request"))["container"] == "code_gen"


async def test_a_stop() -> None:
    async with office() as pm:
        reply = await pm.send(
            "POST", "/api/container_stop", content=f"{IDS}&container_id=bms", headers=FORM
        )
        assert reply.status_code == 404
        await pm.start()
        await pm.tells("bms", Happening.RUNNING)
        await pm.api("container_stop", f"{IDS}&container_id=bms")
        assert (await pm.words())["bms"] == "running"
        await pm.tells("bms", Happening.STOPPED, cause=Cause.CANCELLED)
        assert (await pm.words())["bms"] == "stopped"
        # It is over already, which is what is asked for.
        await pm.api("container_stop", f"{IDS}&container_id=bms")
        assert (await pm.api("status_request"))["container_status"] == "stopped"


async def test_what_waits_says_why() -> None:
    async with office() as pm:
        await pm.start()
        shown = await pm.api("status_request")
        assert (shown["container"], shown["container_status"]) == ("bms", "ready")
        assert "member:bms" in shown["message"] or "worker" in shown["message"]


# one state for each project -----------------------------------------------------------------------------------------


async def test_starts_at_one_time_are_one_start() -> None:
    """The original loads its row, calls, and saves: what came in between is overwritten."""
    async with office() as pm:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(pm.start)
        jobs = await pm.asker.answer(ListJobs(project=PIPELINES))
        assert len(jobs.items) == 1
        assert len(await pm.orders()) == 1


async def test_reports_at_one_time_start_one_next_stage() -> None:
    async with office() as pm:
        await pm.start()
        await pm.done("bms")
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(pm.report, f"container_id=bms&{IDS}&status=success")
        assert [order.stage for order in await pm.orders()] == ["autonn"]


async def test_a_start_beside_what_runs() -> None:
    async with office() as pm:
        await pm.start()
        await pm.tells("bms", Happening.RUNNING)
        assert (await pm.start())["message"] == "bms runs already\n"
        await pm.tells("bms", Happening.COMPLETED, result=b"null")
        reply = await pm.send(
            "POST", "/api/container_start", content=f"{IDS}&container_id=bms", headers=FORM
        )
        assert reply.status_code == 409
        assert "stop it first" in reply.json()["message"]
        # Other projects have pipelines of their own.
        await pm.start(ids="user_id=kyunghee&project_id=2")
        await pm.start(ids="user_id=giantlkh&project_id=1")
        assert len(await pm.orders()) == 3


async def test_a_manager_that_was_started_anew_knows_everything() -> None:
    async with office() as pm:
        assert (
            await pm.set_workflow(project_id=1, workflow=["bms", "code_gen"])
        ).status_code == 200
        await pm.start()
        await pm.done("bms")
        pm.restart()
        assert await pm.words() == {"bms": "completed", "code_gen": "started"}
        assert (await pm.start("code_gen"))["message"] == "code_gen runs already\n"
        assert (await pm.report(f"container_id=bms&{IDS}&status=success"))[0] == 200
        await pm.done("code_gen")
        pm.restart()
        await pm.start()
        assert await pm.words() == {"bms": "started", "code_gen": "ready"}
        assert len((await pm.asker.answer(ListJobs(project=PIPELINES))).items) == 2


# workflows ----------------------------------------------------------------------------------------------------------


async def test_set_workflow_as_measured() -> None:
    async with office() as pm:
        reply = await pm.set_workflow(project_id=2, workflow=["autonn", "code_gen", "imagedeploy"])
        rows = reply.json()["workflow"]
        assert reply.json()["status"] == 200
        assert [(row["workflow_name"], row["order"], row["project_id"]) for row in rows] == [
            ("autonn", 0, 2),
            ("code_gen", 1, 2),
            ("ondevice_deploy", 2, 2),
        ]
        await pm.start("autonn", "user_id=anybody&project_id=2")
        words = await pm.words("user_id=anybody&project_id=2")
        assert list(words) == ["autonn", "code_gen", "ondevice_deploy"]
        # Another project has the usual one.
        await pm.start()
        assert list(await pm.words()) == list(STAGES)


async def test_a_workflow_of_branches() -> None:
    """Our addition: what does not wait for one another runs side by side."""
    table = {"bms": [], "autonn": ["bms"], "vis2code": ["bms"], "code_gen": ["autonn", "vis2code"]}
    async with office() as pm:
        reply = await pm.set_workflow(project_id="1", user_id="kyunghee", workflow=table)
        assert reply.status_code == 200
        await pm.start()
        await pm.done("bms")
        assert {order.stage for order in await pm.orders()} == {"autonn", "vis2code"}
        await pm.done("vis2code")
        assert {order.stage for order in await pm.orders()} == {"autonn"}
        await pm.done("autonn")
        assert {order.stage for order in await pm.orders()} == {"code_gen"}
        await pm.done("code_gen")
        assert (await pm.api("status_request"))["container_status"] == "completed"
        # From the middle on: only what comes after it.
        await pm.start("vis2code")
        assert set(await pm.words()) == {"vis2code", "code_gen"}


async def test_by_hand_a_container_runs_alone() -> None:
    async with office({**TABLE, "mode": "manual"}) as pm:
        await pm.start("autonn")
        assert await pm.words() == {"autonn": "ready"}
        await pm.done("autonn")
        assert await pm.orders() == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "1 to 100"),
        (["nosuch"], "nosuch is no member"),
        (["bms", "bms"], "twice"),
        (["code_gen", "codeGen"], "twice"),
        ([1], "this is no member"),
        ("bms", "a list or a table"),
        (None, "a list or a table"),
        ({"bms": ["autonn"], "autonn": ["bms"]}, "wait for one another"),
        ({"bms": ["bms"]}, "wait for one another"),
        ({"bms": ["autonn"]}, "no part of it"),
        ({"bms": "autonn"}, "a list of containers"),
    ],
)
async def test_workflows_that_are_none(given: object, told: str) -> None:
    async with office() as pm:
        reply = await pm.set_workflow(project_id=1, workflow=given)
        assert reply.status_code == 400
        assert told in reply.json()["message"]


def test_the_workflows_of_the_configuration() -> None:
    projects = {"kyunghee/7": ["autonn"], "8": {"bms": [], "autonn": ["bms"]}}
    options = read_options(DialectPort("tango", None, {**TABLE, "projects": projects}))
    found: Workflow = options.projects["kyunghee", "7"]
    assert dict(found) == {"autonn": ()}
    assert dict(options.projects["", "8"]) == {"bms": (), "autonn": ("bms",)}
    assert dict(options.workflow)["code_gen"] == ("autonn",)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({}, "members: no member"),
        ({"members": {"a": {}}}, "its address is missing"),
        ({"members": {"a": "no"}}, "not HOST:PORT"),
        ({"members": {"a": 1}}, "it is a table"),
        ({"members": {"a b": "h:1"}}, "visible characters"),
        ({"members": {"a": {"address": "h:1", "heartbeet": "2s"}}}, "did you mean heartbeat"),
        ({"members": {"a": {"address": "h:1", "heartbeat": "0s"}}}, "10ms to 24h"),
        ({"members": {"a": {"address": "h:1", "resumes": -1}}}, "whole number"),
        ({"members": {"a": {"address": "h:1", "slots": 0}}}, "1 at least"),
        ({"members": {"a": {"address": "h:1", "secret": "short"}}}, "16 visible"),
        ({"members": {"a": {"address": "h:1", "output": "x"}}}, "absolute path"),
        ({"members": {"a": {"address": "h:1", "aliases": "b"}}}, "list of texts"),
        ({"members": {"a": "h:1"}, "mode": "automatic"}, "auto or manual"),
        ({"members": {"a": "h:1"}, "workflw": []}, "did you mean workflow"),
        ({"members": {"a": "h:1"}, "projects": {"x": ["b"]}}, "projects.x: b is no member"),
    ],
)
def test_options_that_are_wrong_are_named(table: Mapping[str, object], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        read_options(DialectPort("tango", None, dict(table)))


# the contract, words, and reports that are not true -------------------------------------------------------------------


def test_the_words_are_a_total_mapping() -> None:
    assert set(STAGE_WORD) == set(TaskStatus)
    ends = {MemberWord.STOPPED, MemberWord.FAILED, MemberWord.COMPLETED}
    assert {status for status, word in STAGE_WORD.items() if word in ends} == set(TASK_FINAL)
    # Every edge of the core's task table is an edge of the guide's diagram, a step over some of them, or none.
    order = ["ready", "started", "running"]
    for row in TASK.rows:
        if row.source in TASK_FINAL or row.target is TaskStatus.WAITING:
            continue
        target = STAGE_WORD[TaskStatus(row.target)]
        assert target in ends or str(target) in order


QUERY = {"container_id": "code_gen", "user_id": "kyunghee", "project_id": "1", "status": "success"}
BENCH = DialectBench(
    made,
    (
        Call("POST", "/api/set_workflow", b'{"project_id": 1, "workflow": ["code_gen"]}'),
        Call("POST", "/api/container_start", f"{IDS}&container_id=code_gen".encode(), {}, FORM),
        Call("POST", "/api/status_request", IDS.encode(), {}, FORM),
        Call("GET", "/status_report", query=QUERY),
        Call("GET", "/status_report/", query=QUERY),
        Call("GET", "/", query={"status_report": "", **QUERY}),
        Call("POST", "/api/container_stop", f"{IDS}&container_id=code_gen".encode(), {}, FORM),
    ),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_contract_of_dialects(check: Check) -> None:
    await check(BENCH)


def forged(chance: random.Random) -> tuple[str, dict[str, str]]:
    """A report that is not true: by name of another, of another time, of nobody, or no report at all."""
    noise = "".join(chance.choice("abc%&=?/\\\"'<>;{}[]_-.~ ") for _ in range(chance.randrange(30)))
    container = chance.choice(["bms", "autonn", "code_gen", "nosuch", "", "codeGen", "../x", noise])
    user = chance.choice(["kyunghee", "giantlkh", "", "..", "a" * 300, "kyunghee%00", noise])
    project = chance.choice(["1", "2", "3", "", "-1", "1;2", "9" * 100, noise])
    status = chance.choice(
        ["success", "completed", "failed", "running", "ready", "", "boom", noise]
    )
    pairs = [
        f"container_id={container}",
        f"user_id={user}",
        f"project_id={project}",
        f"status={status}",
    ]
    chance.shuffle(pairs)
    if chance.random() < 0.2:
        pairs.pop()
    if chance.random() < 0.1:
        pairs.append(chance.choice(pairs or ["x"]))
    form = chance.choice(["/status_report?", "/?status_report&", "/status_report/?", "/?"])
    headers = chance.choice(
        [
            {},
            {"origin": "http://0.0.0.0:8891"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
            {"x-tango-secret": noise.replace("\\", "")},
            {"content-type": "application/json"},
        ]
    )
    return form + "&".join(pairs), headers


async def test_thousands_of_reports_that_are_not_true() -> None:
    """Of a stage that runs, one that is done, one whose turn has not come, and of what does not exist: nothing moves."""
    async with office() as pm:
        await pm.start()
        await pm.done("bms")
        await pm.tells("autonn", Happening.RUNNING)
        before = await pm.asker.story(Story(limit=500)), await pm.words()
        chance = random.Random(8085)
        statuses: dict[int, int] = {}
        for _ in range(3_500):
            target, headers = forged(chance)
            raw = target.encode("ascii", "ignore").decode().replace(" ", "+").replace("#", "")
            reply = await pm.send("GET", raw, headers=headers)
            statuses[reply.status_code] = statuses.get(reply.status_code, 0) + 1
            assert reply.status_code < 500, (target, reply.text)
        assert (await pm.asker.story(Story(limit=500)), await pm.words()) == before
        # Some were such that the member has to be asked: it alone is believed.
        assert set(pm.nudged) <= {("autonn", ("kyunghee", "1"))}
        assert set(statuses) >= {200, 400, 403, 404, 409}


async def test_a_secret_is_asked_of_reports_and_opens_them_to_all() -> None:
    secret = "0123456789abcdef"  # of this test
    members = {"bms": {"address": "h:1", "secret": secret}}
    async with office({"members": members}) as pm:
        roles = {route.name: route.role for route in pm.dialect.routes}
        assert roles["StatusReport"] == "anyone"
        assert roles["ContainerStart"] == "operator"
        await pm.start()
        joined = await pm.asker.ask(JoinWorker("w", "s", 1, ("member",), labels=("member:bms",)))
        await pm.asker.ask(Heartbeat(joined.worker_id, joined.incarnation))
        query = f"/status_report?container_id=bms&{IDS}&status=success"
        for headers in ({}, {"x-tango-secret": ""}, {"x-tango-secret": secret + "0"}):
            assert (await pm.send("GET", query, headers=headers)).status_code == 403
        assert pm.nudged == []
        reply = await pm.send("GET", query, headers={"x-tango-secret": secret})
        assert reply.status_code == 200
        assert pm.nudged == [("bms", ("kyunghee", "1"))]
    assert {route.role for route in made().routes if route.method == "GET"} == {"worker"}
