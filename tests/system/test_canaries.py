"""Secrets stay where they are: not in the log, not in an answer, not in a job's environment or output, not in an argument."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

import anyio
import httpx
import pytest

from orchestra.cli.entry import carry_out
from orchestra.statemachine import ids
from orchestra.testing.free_port import free_port
from orchestra.transports.tokens import open_tokens, read_plain_tokens
from tests.system.farm import BOUND_S, PAUSE_S, Child

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow]

SETTINGS = """
require_token = true
token_file = "{tokens}"
log_level = "debug"
local_worker = 1

[dialects.tango.members.code_gen]
address = "127.0.0.1:9"
secret = "{member}"
"""
SHOW = {
    "name": "show",
    "stages": [
        {
            "name": "s",
            "app": "process",
            "template": {"argv": ["/bin/sh", "-c", "env; tr '\\0' ' ' < /proc/$PPID/cmdline"]},
        }
    ],
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


def canaries(folder: Path) -> dict[str, str]:
    """Every secret that a server can be given, by what it is."""
    path = str(folder / "tokens")
    open_tokens(path)
    plain = {role.name: token.reveal() for role, token in read_plain_tokens(path).items()}
    drawn = {name: f"canary-{name}-{secrets.token_hex(12)}" for name in ("member", "environment")}
    return {**plain, **drawn}


async def answers(url: str, token: str) -> list[str]:
    """What is said to those who ask rightly and wrongly, with the right token and others."""
    said: list[str] = []
    bearers = ({}, {"authorization": f"Bearer {token}"}, {"authorization": f"Bearer {token}x"})
    asked = (
        ("GET", "/api/v1/overview", None),
        ("GET", f"/api/v1/jobs/last?token={token}", None),
        ("POST", "/api/v1/jobs", b'{"name": 1}'),
        ("POST", "/api/v1/jobs", token.encode()),
        ("GET", "/api/v1/settings", None),
        ("GET", "/api/v1/openapi.json", None),
        ("GET", "/tango/start?user_id=u&project_id=1", None),
        ("GET", "/nowhere", None),
    )
    async with httpx.AsyncClient(base_url=url) as http:
        for headers in bearers:
            for method, path, body in asked:
                reply = await http.request(
                    method,
                    path,
                    content=body,
                    headers={"content-type": "application/json", **headers},
                )
                assert reply.status_code < 500, reply.text
                said.append(f"{reply.headers} {reply.text}")
    return said


async def show(url: str, bearer: Mapping[str, str]) -> list[str]:
    """Run a program that shows its environment, and its parent's arguments: what it wrote, and how its task is told."""
    headers = {"content-type": "application/json", **bearer}
    async with httpx.AsyncClient(base_url=f"{url}/api/v1", headers=headers) as http:
        job_id = (await http.post("/jobs", content=json.dumps(SHOW))).json()["job_id"]
        status = ""
        with anyio.fail_after(BOUND_S):
            while status not in ("completed", "failed"):
                await anyio.sleep(PAUSE_S)
                status = (await http.get(f"/jobs/{job_id}")).json()["status"]
        assert status == "completed"
        task = (await http.get(f"/jobs/{job_id}/tasks")).json()["items"][0]
        attempt_id = ids.attempt_id(task["id"], 1)
        shown = (await http.get(f"/attempts/{attempt_id}/logs/stdout")).text
        assert "PATH=" in shown, "the control: the program has shown its environment"
        return [shown, json.dumps(task)]


async def test_no_secret_is_shown_anywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hidden = canaries(tmp_path)
    config = tmp_path / "orchestra.toml"
    config.write_text(SETTINGS.format(tokens=tmp_path / "tokens", member=hidden["member"]))
    port = free_port()
    env = {
        **os.environ,
        "ORCHESTRA_TOKEN": hidden["OPERATOR"],
        "CLOUD_SECRET_KEY": hidden["environment"],
    }
    words = ["--config", str(config), "--listen", f"127.0.0.1:{port}", "--json"]
    words += ["--data", str(tmp_path / "served.db"), "--folder", str(tmp_path / "work")]
    argv = [sys.executable, "-m", "orchestra", "serve", *words]
    log = tmp_path / "served.log"
    server = Child(argv, env, log)
    try:
        said = [json.dumps(await server.line())]
        url = f"http://127.0.0.1:{port}"
        said += await answers(url, hidden["OPERATOR"])
        said += await show(url, {"authorization": f"Bearer {hidden['OPERATOR']}"})
        said += [" ".join(each.cmdline()) for each in server.tree()]
    finally:
        server.kill()
    said.append(log.read_text())
    assert "GET" in said[-1], "the control: the log tells of requests"
    said.append((tmp_path / "served.db").read_bytes().decode("latin-1"))
    carry_out(["doctor", "--data", str(tmp_path / "served.db"), "--config", str(config)])
    said += capfd.readouterr()
    found = [(name, text[:300]) for name, each in hidden.items() for text in said if each in text]
    assert found == []
