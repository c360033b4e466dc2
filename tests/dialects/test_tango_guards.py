"""
GETs that change something, behind the door: every combination of what a browser tells, of names and of secrets, and that only programs
get through.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import anyio
import httpx
import pytest

from orchestra import App
from orchestra.config import Config, DialectPort
from orchestra.dialects.tango import member
from orchestra.dialects.tango_manager import manager
from orchestra.dialects.tango_options import read_options
from orchestra.dialects.wire import Dialect
from orchestra.errors import Forbidden, Malformed
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.storage.memory import MemoryStore
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.http import http_app
from orchestra.transports.policy import policy_for

pytestmark = pytest.mark.anyio

IDS = "user_id=kyunghee&project_id=1"
SECRET = "0123456789abcdef"  # of this test
CALLS = {
    f"/start?{IDS}": 200,
    f"/?stop&{IDS}": 200,
    # Nothing was started: it has passed the door, and is told so.
    f"/status_report?container_id=code_gen&{IDS}&status=success": 404,
}
BROWSERS: dict[str, tuple[dict[str, str], bool]] = {
    "a program": ({}, True),
    "typed": ({"sec-fetch-site": "none"}, True),
    "own page": ({"sec-fetch-site": "same-origin"}, True),
    "neighbour": ({"sec-fetch-site": "same-site"}, False),
    "image": ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, False),
    "link": ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, False),
}
NAMES: dict[str, tuple[dict[str, str], bool]] = {
    "address": ({"host": "127.0.0.1:8085"}, True),
    "as measured": ({"host": "0.0.0.0:8085"}, True),
    "with origin": ({"host": "0.0.0.0:8085", "origin": "http://0.0.0.0:8891"}, True),
    "own origin": ({"host": "127.0.0.1:8085", "origin": "http://127.0.0.1:8085"}, True),
    "rebound": ({"host": "evil.example:8085"}, False),
    "foreign": ({"host": "127.0.0.1:8085", "origin": "http://evil.example"}, False),
    "sandbox": ({"host": "0.0.0.0:8085", "origin": "null"}, False),
    "same port": ({"host": "0.0.0.0:8085", "origin": "https://evil.example:8085"}, False),
}
SECRETS: dict[str, tuple[str, dict[str, str], bool]] = {
    "none needed": ("", {}, True),
    "none came": (SECRET, {}, False),
    "wrong": (SECRET, {"x-tango-secret": SECRET[:-1]}, False),
    "right": (SECRET, {"x-tango-secret": SECRET}, True),
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is shown here does not depend on the loop."""
    return "asyncio"


def generator() -> App:
    app = App()

    @app.task
    def generate(user_id: str, project_id: str) -> None: ...

    return app


def dialects(secret: str) -> tuple[Dialect, Dialect]:
    served = member(generator(), container_id="code_gen", secret=secret)
    place: dict[str, Any] = {"address": "127.0.0.1:8888"}
    if secret:
        place["secret"] = secret
    options = read_options(DialectPort("tango", None, {"members": {"code_gen": place}}))
    return (
        served.dialect(lambda: 0, lambda calls: [None] * len(calls)),
        manager(options, lambda *_: False),
    )


async def test_every_combination_of_asker_name_and_secret() -> None:
    orchestrator = Orchestrator(MemoryStore())
    cells = 0
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        for secret_told, (secret, presented, right) in SECRETS.items():
            doors: list[Door] = []
            for dialect in dialects(secret):
                policy = policy_for([dialect])
                gate = open_gate(Config(), policy).at_own_port(policy, frozenset(dialect.hosts))
                app = http_app(orchestrator, [dialect], policy=policy)
                doors.append(Door(app, gate, refuse=dialect.refuse))
            for (target, status), browser, name in product(CALLS.items(), BROWSERS, NAMES):
                fetched, wanted = BROWSERS[browser]
                named, known = NAMES[name]
                # What a browser sent is judged by its origin, whatever a program may call itself.
                known = known and not (fetched and name == "with origin")
                door = doors["status_report" in target]
                transport = httpx.ASGITransport(app=door, client=("127.0.0.1", 50_000))
                async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                    reply = await client.get(target, headers={**fetched, **named, **presented})
                expected = status if wanted and known and right else 403
                cell = (target, browser, name, secret_told)
                assert (reply.status_code, cell) == (expected, cell)
                cells += 1
        group.cancel_scope.cancel()
    assert cells == 3 * 6 * 8 * 4


@pytest.mark.parametrize(
    ("container_id", "further", "known"),
    [
        ("code_gen", (), ("codegen:8888", "code_gen:8888", "code-gen", "CODEGEN:8888")),
        ("codeGen", (), ("codegen:8888", "codeGen:8888", "code_gen:8888")),
        ("ondevice_deploy", (), ("ondevice:8891", "ondevice_deploy:8891")),
        ("cloud_deploy", (), ("cloud-deploy:8890",)),
        ("autonn", (), ("autonn:8100",)),
        ("autonn", ("Trainer.lab",), ("trainer.lab:8100", "autonn:8100")),
    ],
)
async def test_a_member_is_called_by_the_name_of_its_host(
    container_id: str, further: tuple[str, ...], known: tuple[str, ...]
) -> None:
    served = member(generator(), container_id=container_id, hosts=further)
    dialect = served.dialect(lambda: 0, lambda calls: [None] * len(calls))
    policy = policy_for([dialect])
    gate = open_gate(Config(), policy).at_own_port(policy, frozenset(dialect.hosts))
    for host in known:
        gate.check_source("GET", {"host": host})
    for host in ("evil.example:8888", "codegen.evil.example", "gen:8888"):
        with pytest.raises(Forbidden, match="host"):
            gate.check_source("GET", {"host": host})


@pytest.mark.parametrize("host", ["", "a b", "http://codegen", "codegen:8888", "a/b"])
def test_a_name_that_is_no_hosts_is_refused(host: str) -> None:
    with pytest.raises(Malformed, match="no host's name"):
        member(generator(), container_id="code_gen", hosts=(host,))


def test_a_member_of_a_manager_may_be_written_with_capitals() -> None:
    place = {"address": "codeGen:8888"}
    options = read_options(DialectPort("tango", None, {"members": {"code_gen": place}}))
    dialect = manager(options, lambda *_: False)
    policy = policy_for([dialect])
    gate = open_gate(Config(), policy).at_own_port(policy, frozenset(dialect.hosts))
    gate.check_source("GET", {"host": "codegen:8085"})
    gate.check_source("GET", {"host": "codeGen:8085"})
