"""Malformed input at each surface of a real server: a clear error that names the field, nothing changed, nothing crashed."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Message, Request

from orchestra.statemachine.commands import JoinWorker, SubmitJob
from tests.system.farm import BOUND_S, Farm, open_farm
from tests.tidy import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.system]

JOB = {"name": "j"}
STAGE = {"name": "s", "app": "process", "template": {"argv": ["true"]}}


def job(**stage: object) -> dict[str, object]:
    return {**JOB, "stages": [{**STAGE, **stage}]}


def report(**fields: object) -> dict[str, object]:
    return {"incarnation": 1, "reports": [{"attempt_id": "ATTEMPT", **fields}]}


def asking(name: str, body: object, **more: object) -> str:
    return json.dumps({"id": 1, "ask": name, "body": body, **more})


BODIES: list[tuple[str, str, object, str]] = [
    ("POST", "/jobs", b"{", "character 1"),
    ("POST", "/jobs", b"", "body"),
    ("POST", "/jobs", b'{"name":"\xff"}', "byte 9"),
    ("POST", "/jobs", b"[" * 10_000, "body"),
    ("POST", "/jobs", b'{"name":"j","name":"k","stages":[]}', "name"),
    ("POST", "/jobs", {**job(), "name": 5}, "name"),
    ("POST", "/jobs", {**job(), "name": "x" * 201}, "name"),
    ("POST", "/jobs", {**job(), "colour": "red"}, "colour"),
    ("POST", "/jobs", {**JOB, "stages": []}, "stages"),
    ("POST", "/jobs", job(retries="many"), "stages[0].retries"),
    ("POST", "/jobs", job(retries=-1), "stages[0].retries"),
    ("POST", "/jobs", job(after=["nowhere"]), "stages[0].after"),
    ("POST", "/jobs", job(after=["s"]), "stages[0].after"),
    ("POST", "/jobs/nowhere/cancel", {"grace_ms": "soon"}, "grace_ms"),
    ("POST", "/workers", {"name": "", "session": "s", "slots": 1, "apps": []}, "name"),
    ("POST", "/workers", {"name": "n", "session": "s", "slots": 0, "apps": []}, "slots"),
    ("POST", "/workers/WORKER/reports", report(happening="exploded"), "reports[0].happening"),
    (
        "POST",
        "/workers/WORKER/reports",
        report(happening="progress", fraction="half"),
        "reports[0].fraction",
    ),
    (
        "POST",
        "/workers/WORKER/reports",
        {"incarnation": "one", "reports": []},
        "incarnation",
    ),
    ("POST", "/workers/WORKER/heartbeat", {"incarnation": 1, "holding": 5}, "holding"),
    (
        "POST",
        "/workers/WORKER/logs",
        {
            "incarnation": 1,
            "chunks": [{"attempt_id": "a", "stream": "s", "offset": -1, "data": ""}],
        },
        "chunks[0].offset",
    ),
    ("GET", "/jobs?limit=many", None, "limit"),
    ("GET", "/jobs?colour=red", None, "colour"),
    ("PATCH", "/settings", {"lease_ms": 1}, "lease_ms"),
]

FRAMES: list[tuple[str, str]] = [
    ("{", "character 1"),
    ("[]", "body"),
    ('{"id": 0, "ask": "GetOverview"}', "id"),
    ('{"id": 1}', "ask"),
    ('{"id": 1, "ask": "Nonsense"}', "ask"),
    ('{"id": 1, "ask": "GetOverview", "colour": "red"}', "colour"),
    ('{"id": 1, "ask": "SubmitJob", "body": {"name": 5, "stages": []}}', "body.name"),
    (asking("SubmitJob", job(), key="two words"), "key"),
    (
        asking("AttemptsReported", {"worker_id": "WORKER", **report(happening="exploded")}),
        "body.reports[0].happening",
    ),
    ('{"id": 1, "watch": {"gossip": {}}}', "watch.gossip"),
    ('{"id": 1, "watch": {"story": {"after": "now"}}}', "watch.story.after"),
]

PROJECTS: list[tuple[str, str]] = [
    ("[project", "line 1"),
    ('[stages.a]\nargv = "true"\n', "stages.a.argv"),
    ('[stages.a]\nargv = ["true"]\nretrys = 3\n', "retrys"),
    ('[stages.a]\nargv = ["true"]\ntimeout = "soon"\n', "stages.a.timeout"),
    ('[stages.a]\nargv = ["true"]\nafter = ["b"]\n', "stages.a.after"),
    ('[stages.a]\nargv = ["true"]\nneeds = { cpu = -1 }\n', "stages.a.needs.cpu"),
]

COMMANDS: list[tuple[list[str], str]] = [
    (["submit", "--array", "1-x", "--", "true"], "--array"),
    (["submit", "--needs", "cpu=lots", "--", "true"], "--needs"),
    (["submit", "nowhere.toml"], "nowhere.toml"),
    (["ls", "--colour"], "--colour"),
    (["why", "nothing"], "nothing"),
    (["worker", "--slots", "0"], "--slots"),
    (["serve", "--listen", "127.0.0.1:eighty"], "listen"),
]


@pytest.fixture(scope="module")
async def farm(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Farm]:
    """A server with one job, and a worker that holds it and stays silent for an hour."""
    folder = tmp_path_factory.mktemp("malformed")
    async with open_farm(folder, lease_ms=3_600_000) as opened:
        server = await opened.serve()
        async with opened.client() as client:
            await client.submit(SubmitJob("here", (opened.stage("true", 1),)))
            await client.asker.ask(JoinWorker("w", "session", 1, ("process",)))
        yield opened
        server.check()


@contextmanager
def nothing_changes(farm: Farm) -> Iterator[None]:
    """Every row of the store is the same before and after, and the server writes no traceback."""
    before = rows(farm)
    assert any("job" in row for row in before)
    yield
    assert rows(farm) == before
    assert "Traceback" not in (farm.folder / "server.err").read_text()


def rows(farm: Farm) -> list[str]:
    """The whole file as statements that would make it."""
    with closing(sqlite3.connect(f"file:{farm.data}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())


async def ids_of(farm: Farm) -> tuple[str, str]:
    """Of the worker, and of the attempt that it holds."""
    async with farm.client() as client:
        (worker,) = await client.workers()
        task = await client.task("1.1")
    return worker.id, task.attempts[0].id


async def filled(farm: Farm, text: str) -> str:
    worker_id, attempt_id = await ids_of(farm)
    return text.replace("WORKER", worker_id).replace("ATTEMPT", attempt_id)


@pytest.mark.parametrize(("method", "path", "body", "where"), BODIES)
async def test_bodies(farm: Farm, method: str, path: str, body: object, where: str) -> None:
    content = body
    if not isinstance(body, bytes) and body is not None:
        content = (await filled(farm, json.dumps(body))).encode()
    with nothing_changes(farm):
        async with httpx.AsyncClient(base_url=farm.url() + "/api/v1") as http:
            response = await http.request(
                method,
                await filled(farm, path),
                content=content,
                headers={"content-type": "application/json"},
            )
    problem = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, problem["status"]) == (400, 400)
    assert problem["where"] == where
    assert problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/jobs", {"content-type": "text/plain"}, 415),
        ("DELETE", "/jobs", {}, 405),
        ("GET", "/nowhere", {}, 404),
        ("GET", "/jobs/99", {}, 404),
    ],
)
async def test_requests(
    farm: Farm, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    with nothing_changes(farm):
        async with httpx.AsyncClient(base_url=farm.url() + "/api/v1") as http:
            content = json.dumps(job()) if method == "POST" else None
            response = await http.request(method, path, content=content, headers=headers)
    assert response.status_code == status
    assert response.json()["detail"]


async def test_reports_of_a_stranger_are_answered_and_change_nothing(farm: Farm) -> None:
    worker_id, attempt_id = await ids_of(farm)
    cases = [(1, "nowhere", "no such attempt"), (7, attempt_id, "the attempt is not this worker's")]
    with nothing_changes(farm):
        async with httpx.AsyncClient(base_url=farm.url() + "/api/v1") as http:
            for incarnation, attempt, why in cases:
                told = {"attempt_id": attempt, "happening": "completed"}
                response = await http.post(
                    f"/workers/{worker_id}/reports",
                    json={"incarnation": incarnation, "reports": [told]},
                )
                assert response.status_code == 200
                assert response.json() == {"ignored": [why]}


@pytest.mark.parametrize(("frame", "where"), FRAMES)
async def test_frames(farm: Farm, frame: str, where: str) -> None:
    with nothing_changes(farm):
        words = [await filled(farm, frame), '{"id": 9, "ask": "GetOverview", "body": {}}']
        refused, served = await anyio.to_thread.run_sync(said, farm.port, words)
    assert refused["problem"]["status"] == 400
    assert refused["problem"]["where"] == where
    assert refused["problem"]["detail"]
    assert served["id"] == 9
    assert "reply" in served


def said(port: int, words: list[str]) -> list[dict[str, Any]]:
    """What a server answers to each of some texts on one websocket."""
    wire = WSConnection(ConnectionType.CLIENT)
    answers: list[dict[str, Any]] = []
    with socket.create_connection(("127.0.0.1", port), timeout=BOUND_S) as sock:
        sock.sendall(wire.send(Request(host=f"127.0.0.1:{port}", target="/api/v1/channel")))
        for event in _events(sock, wire):
            if isinstance(event, Message):
                answers.append(json.loads(event.data))
            elif not isinstance(event, AcceptConnection):
                raise AssertionError(f"the server closed: {event}")
            if len(answers) == len(words):
                return answers
            sock.sendall(wire.send(Message(words[len(answers)])))
    raise AssertionError("the server closed the connection")


def _events(sock: socket.socket, wire: WSConnection) -> Iterator[Any]:
    while part := sock.recv(65_536):
        wire.receive_data(part)
        yield from wire.events()


async def run(farm: Farm, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of ours, to its end."""
    argv = [sys.executable, "-m", "orchestra", *words]
    env = {"PATH": "/usr/bin:/bin", "ORCHESTRA_SERVER": farm.url(), "PYTHONPATH": str(ROOT)}
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            argv,
            cwd=farm.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
    )


@pytest.mark.parametrize(("text", "where"), PROJECTS)
async def test_project_files(farm: Farm, tmp_path: Path, text: str, where: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with nothing_changes(farm):
        done = await run(farm, "submit", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert where in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("words", "where"), COMMANDS)
async def test_commands(farm: Farm, words: list[str], where: str) -> None:
    with nothing_changes(farm):
        done = await run(farm, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert where in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_change_is_seen(farm: Farm) -> None:
    """What the other tests compare does change with something well-formed."""
    before = rows(farm)
    async with httpx.AsyncClient(base_url=farm.url() + "/api/v1") as http:
        assert (await http.post("/jobs", json=job())).status_code == 201
    with pytest.raises(AssertionError):
        assert rows(farm) == before
