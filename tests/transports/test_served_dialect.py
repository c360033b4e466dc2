"""The native dialect behind the door of a real server: every route and channel, for every kind of caller."""

from __future__ import annotations

import json
import re
from pathlib import Path

import anyio
import httpx
import pytest

from orchestra.compose import open_orchestrator
from orchestra.config import Address, Config
from orchestra.dialects.native import native_dialect
from orchestra.dialects.wire import Role
from orchestra.transports.auth import open_gate
from orchestra.transports.door import Door
from orchestra.transports.http import http_app
from orchestra.transports.policy import OPENS, policy_for
from orchestra.transports.serve import serve
from orchestra.transports.tokens import Token, digest, draw_token, write_tokens
from tests.transports.loopback import BRISK, PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_every_route_opens_to_its_roles_alone(tmp_path: Path) -> None:
    plain = {role: draw_token() for role in (Role.WORKER, Role.VIEWER, Role.OPERATOR)}
    kept = [Token(role.value, role, digest(token)) for role, token in plain.items()]
    path = str(tmp_path / "tokens")
    write_tokens(path, kept, plain)
    config = Config(
        listen=Address("127.0.0.1", 0), token_file=path, require_token=True, limits=BRISK
    )
    dialect = native_dialect()
    gate = open_gate(config, policy_for([dialect]))
    stop, up = anyio.Event(), anyio.Event()
    found: list[Address] = []

    def ready(address: Address) -> None:
        found.append(address)
        up.set()

    async with open_orchestrator(None) as orchestrator, anyio.create_task_group() as tasks:
        app = http_app(orchestrator, [dialect], policy=gate.policy)

        async def run() -> None:
            await serve(Door(app, gate), config, ready=ready, stopping=app.close_streams, stop=stop)

        tasks.start_soon(run)
        with anyio.fail_after(PATIENCE_S):
            await up.wait()
        async with httpx.AsyncClient(base_url=f"http://{found[0]}") as client:
            for route in dialect.routes:
                address = re.sub(r"\{\w+\}", "x", route.path)
                for role in (Role.ANYONE, *plain):
                    headers = {}
                    if role is not Role.ANYONE:
                        headers["authorization"] = f"Bearer {plain[role].reveal()}"
                    async with client.stream(route.method, address, headers=headers) as answer:
                        status = answer.status_code
                    if role in OPENS[route.role]:
                        assert status not in {401, 403, 500}, (route.name, role, status)
                    else:
                        assert status == (401 if role is Role.ANYONE else 403), (route.name, role)
            refused = await client.get("/nothing")
            assert refused.status_code == 401
            assert json.loads(refused.content)["status"] == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        stop.set()
