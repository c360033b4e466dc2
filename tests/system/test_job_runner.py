"""The job runner's document, request by request, against a real server with a real worker and real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import psutil
import pytest

from orchestra.ports import Log
from orchestra.statemachine.queries import GetTask, ListTasks
from tests.system.farm import PAUSE_S, Farm, open_farm, until
from tests.system.laws import lives
from tests.tidy import ROOT

pytestmark = [pytest.mark.anyio, pytest.mark.system]

COUNT = """\
sleep 600 &
echo $! > child.pid
echo counting
echo wrong >&2
mv child.pid {told}
wait
"""
BOUND_S = 60.0


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The tests' own side needs one loop; the server and the worker are processes."""
    return "asyncio"


class Runner:
    """A client of the dialect that sends what the document shows."""

    def __init__(self, farm: Farm, client: httpx.AsyncClient, told: Path) -> None:
        self.farm = farm
        self._client = client
        self.told = told

    async def post(self, path: str, body: dict[str, str] | bytes) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"{self.farm.url()}/job-runner{path}"
        # What curl -d sends.
        form = {"content-type": "application/x-www-form-urlencoded"}
        reply = await self._client.post(url, content=content, headers=form)
        return reply.status_code, reply.json()

    async def start(self, path: str, worker: str = "w1", command: str = "bash") -> tuple[int, Any]:
        return await self.post("/start", {"worker_id": worker, "command": command, "path": path})

    async def until_done(self, job: str) -> Any:
        with anyio.fail_after(BOUND_S):
            while True:
                status, read = await self.post("/query", {"worker_id": "w1", "job_id": job})
                assert status == 200
                if read["done"]:
                    return read
                await anyio.sleep(PAUSE_S)

    def orchestra(self, *words: str) -> str:
        """What the command line prints."""
        env = {**os.environ, "ORCHESTRA_SERVER": self.farm.url()}
        argv = [sys.executable, "-m", "orchestra", *words]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@asynccontextmanager
async def runner(
    folder: Path, *, exact: bool, commands: str = '["bash", "nosuchcmd"]'
) -> AsyncGenerator[Runner]:
    root, told = folder / "root", folder / "child.pid"
    (root / "worker/scripts").mkdir(parents=True)
    (root / "worker/scripts/count.sh").write_text(COUNT.format(told=told))
    (root / "three.sh").write_text("echo said; echo wrong >&2; exit 3\n")
    (root / "fine.sh").write_text("echo fine\n")
    toml = folder / "orchestra.toml"
    flag = str(exact).lower()
    toml.write_text(
        f'[dialects.job-runner]\ncommands = {commands}\nroot = "{root}"\nexact = {flag}\n'
    )
    async with open_farm(folder) as farm, httpx.AsyncClient(timeout=BOUND_S) as client:
        await farm.serve(further=["--config", str(toml)])
        await farm.join("w0", 2)
        await farm.join("w1", 2)
        yield Runner(farm, client, told)


def child_of(run: Runner) -> psutil.Process:
    return psutil.Process(int(run.told.read_text()))


async def gone(process: psutil.Process) -> None:
    await until(lambda: not lives(process), BOUND_S)


@pytest.mark.parametrize("exact", [False, True])
async def test_the_documents_examples(tmp_path: Path, exact: bool) -> None:
    async with runner(tmp_path, exact=exact) as run:
        status, started = await run.start("worker/scripts/count.sh")
        assert (status, list(started)) == (201, ["job_id"])
        named = {"worker_id": "w1", "job_id": started["job_id"]}
        await until(run.told.exists, BOUND_S)
        child = child_of(run)
        running = {"done": False, "error": False, "error_text": ""}
        assert await run.post("/query", named) == (200, running)

        # One story: the same job by the native interface, on the worker that was named.
        async with run.farm.client() as client:
            (worker,) = [each for each in await client.workers() if each.name == "w1"]
            (task,) = (await client.asker.answer(ListTasks(started["job_id"]))).items
            assert task.worker in (worker.id, worker.name)

        assert await run.post("/stop", named) == (200, {"success": True})
        killed = {"done": True, "error": True, "error_text": "signal: killed"}
        assert await run.until_done(started["job_id"]) == killed
        await gone(child)
        assert await run.post("/stop", named) == (200, {"success": True})

        status, by_id = await run.start("fine.sh", worker=worker.id)
        assert status == 201
        assert await run.until_done(by_id["job_id"]) == {**running, "done": True}
        status, three = await run.start("three.sh")
        assert (await run.until_done(three["job_id"]))["error_text"] == "exit status 3"
        status, missing = await run.start("missing.sh")
        assert status == 201
        assert (await run.until_done(missing["job_id"]))["error_text"] == "exit status 127"

        lost = {"error": "worker not found"}
        for path in ("/start", "/stop", "/query"):
            for body in (b"{}", b"null", b'{"worker_id": "d5feef60-3029-11e9-b210-d663bd873d93"}'):
                assert await run.post(path, body) == (500 if exact else 404, lost)
        refusals = {
            "job": await run.post("/query", {**named, "job_id": "last"}),
            "other worker": await run.post("/stop", {**named, "worker_id": "w0"}),
            "command": await run.start("fine.sh", command="sh"),
            "none": await run.start("fine.sh", command=""),
            "json": await run.post("/start", b"{bad"),
        }
        rpc = "rpc error: code = Unknown desc = "
        if exact:
            assert {name: told["error"] for name, (_, told) in refusals.items()} == {
                "job": f"{rpc}job not found",
                "other worker": f"{rpc}job not found",
                "command": f'{rpc}exec: "sh": executable file not found in $PATH',
                "none": f"{rpc}exec: no command",
                "json": "invalid character 'b' looking for beginning of object key string",
            }
        assert [status for status, _ in refusals.values()] == (
            [500] * 5 if exact else [404, 404, 403, 400, 400]
        )


async def test_output_is_readable_and_the_command_line_stops_it(tmp_path: Path) -> None:
    async with runner(tmp_path, exact=True) as run:
        _, three = await run.start("three.sh")
        await run.until_done(three["job_id"])
        async with run.farm.client() as client:
            view = await client.asker.answer(GetTask(f"{three['job_id']}-0001"))
            (attempt,) = view.attempts
            assert attempt.exit_code == 3
            out = await client.asker.log(Log(attempt.id, "stdout"))
            err = await client.asker.log(Log(attempt.id, "stderr"))
            assert (out.data, err.data) == (b"said\n", b"wrong\n")
        told = await anyio.to_thread.run_sync(partial(run.orchestra, "logs", view.selector))
        assert "said" in told

        _, started = await run.start("worker/scripts/count.sh")
        await until(run.told.exists, BOUND_S)
        child = child_of(run)
        job = started["job_id"]
        await anyio.to_thread.run_sync(partial(run.orchestra, "stop", job))
        assert (await run.until_done(job))["error"] is True
        await gone(child)
        story = [moved for moved in await run.farm.story() if moved.id == job]
        assert [moved.target for moved in story] == ["queued", "running", "cancelling", "cancelled"]


async def test_an_empty_list_is_said_at_the_start(tmp_path: Path) -> None:
    async with runner(tmp_path, exact=False, commands="[]") as run:
        assert (await run.start("fine.sh"))[0] == 403
        assert "nothing runs" in (tmp_path / "server.err").read_text()
