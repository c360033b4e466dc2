"""Forged, replayed and malformed requests to the job runner: none starts, stops or shows anything, and none makes it stumble."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from orchestra.config import DialectPort
from orchestra.dialects.job_runner import job_runner
from orchestra.engines.paths import kind_at
from orchestra.ports import Story
from orchestra.runtime.orchestrator import Orchestrator
from orchestra.statemachine import limits
from orchestra.statemachine.commands import JoinWorker, Reconfigure
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.storage.memory import MemoryStore
from orchestra.transports.http import http_app
from tests.dialects.flamenco_kit import Everybody

pytestmark = pytest.mark.anyio

REQUESTS = 2_500
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """What is shown here does not depend on the loop."""
    return "asyncio"


def near_miss(chance: random.Random, worker_id: str, job_id: str) -> tuple[str, object]:
    """A request in which one thing is not right: another's worker, a job that is none, a command or a path that is not allowed."""
    call = chance.choice(["/start", "/stop", "/query"])
    others = [
        "",
        "w",
        "local",
        worker_id[:-1],
        worker_id + "0",
        worker_id.upper() + "x",
        "../" + worker_id,
    ]
    if call == "/start":
        asked: dict[str, object] = {"worker_id": worker_id, "command": "bash", "path": "count.sh"}
        wrong = chance.choice(["worker_id", "command", "path", "shape"])
        if wrong == "worker_id":
            asked[wrong] = chance.choice(others)
        elif wrong == "command":
            asked[wrong] = chance.choice(
                ["sh", "bash -c", "/bin/bash", "bash;id", "", "{python}", "BASH"]
            )
        elif wrong == "path":
            asked[wrong] = chance.choice(
                ["../count.sh", "/etc/passwd", "", "-c", "count.sh\0", "$(id)", "out/x"]
            )
        else:
            del asked[chance.choice(list(asked))]
        return call, asked
    numbers = [
        "",
        "0",
        "-1",
        job_id + "0",
        "9" * 30,
        "1e1",
        "\u0661",
        f"{job_id}.1",
        f" {job_id}",
        "x",
    ]
    if chance.random() < 0.5:
        return call, {"worker_id": chance.choice(others), "job_id": job_id}
    return call, {"worker_id": worker_id, "job_id": chance.choice(numbers)}


def malformed(chance: random.Random) -> tuple[str, bytes]:
    """A body that is no request."""
    noise = chance.randbytes(chance.randrange(1, 200))
    body = chance.choice(
        (
            noise,
            b"",
            b"null",
            b"[]",
            b"{}",
            b'"start"',
            b"[" * 5_000,
            b'{"worker_id": "w", "worker_id": "v", "job_id": "1"}',
            b'{"worker_id": 1, "job_id": "1"}',
            b'{"worker_id": "w", "job_id": 1e999}',
            b'{"worker_id": "\\ud800", "job_id": "1"}',
            b'{"worker_id": "right", "command": ["bash"], "path": "count.sh"}',
            b'{"worker_id": "right", "command": "bash", "path": "count.sh"} {}',
            b'\xff\xfe{"worker_id": "w"}',
        )
    )
    return chance.choice(["/start", "/stop", "/query"]), body


async def test_thousands_of_requests_that_are_not_right(tmp_path: Path) -> None:
    (tmp_path / "count.sh").write_text("echo 1\n")
    (tmp_path / "out").symlink_to("/")
    options: dict[str, Any] = {"commands": ["bash"], "root": str(tmp_path)}
    dialect = job_runner(DialectPort("job-runner", None, options), kind_at)
    orchestrator = Orchestrator(MemoryStore())
    async with anyio.create_task_group() as group:
        await group.start(orchestrator.run)
        asker = orchestrator.for_principal("test")
        app = http_app(orchestrator, [dialect], Everybody())
        transport = httpx.ASGITransport(app=app, client=("10.0.0.66", 50_000))
        async with httpx.AsyncClient(transport=transport, base_url="http://runner") as client:

            async def send(call: str, body: bytes) -> httpx.Response:
                return await client.post(call, content=body, headers=JSON)

            # However long the thousands take, the worker stays.
            await asker.ask(Reconfigure(lease_ms=limits.DAY_MS))
            joined = await asker.ask(JoinWorker("right", "session", 2, ("process",)))
            start = {"worker_id": "right", "command": "bash", "path": "count.sh"}
            reply = await send("/start", json.dumps(start).encode())
            # The control: what is right is accepted, so the others were not refused for a reason that all have.
            assert reply.status_code == 201, reply.text
            job_id = str(reply.json()["job_id"])
            beat = Heartbeat(joined.worker_id, joined.incarnation)
            (order,) = (await asker.ask(beat)).orders
            running = (AttemptReport(order.attempt_id, Happening.RUNNING),)
            await asker.ask(AttemptsReported(joined.worker_id, joined.incarnation, running))
            before = await asker.story(Story(limit=500))
            chance = random.Random(8086)
            refused = 0
            for _ in range(REQUESTS):
                if chance.random() < 0.6:
                    call, content = near_miss(chance, "right", job_id)
                    body = json.dumps(content).encode()
                else:
                    call, body = malformed(chance)
                reply = await send(call, body)
                assert reply.status_code < 500, (call, body, reply.text)
                assert "echo" not in reply.text
                refused += reply.status_code >= 400
            assert await asker.story(Story(limit=500)) == before
            assert refused == REQUESTS
        group.cancel_scope.cancel()
