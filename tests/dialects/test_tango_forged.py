"""The Project Manager and callers who are not what they say: the contract of dialects, false reports, secrets."""

from __future__ import annotations

import random

import pytest

from orchestra.ports import Story
from orchestra.statemachine.commands import JoinWorker
from orchestra.statemachine.reports import Happening, Heartbeat
from orchestra.testing.check_dialect import CHECKS, Call, Check, DialectBench
from tests.dialects.tango_office import FORM, IDS, made, office

pytestmark = pytest.mark.anyio


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
