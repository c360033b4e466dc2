"""The job runner's HTTP API document, request by request, as bytes over a socket to a server with a worker."""

from __future__ import annotations

import json
from pathlib import Path

import anyio.to_thread
import pytest

from orchestra.client import Client
from tests.documents.served import Answer, Server, served
from tests.system.farm import until

pytestmark = [pytest.mark.anyio, pytest.mark.system]

WORKER = "d5feef60-3029-11e9-b210-d663bd873d93"

START = """\
{
  "worker_id": "d5feef60-3029-11e9-b210-d663bd873d93",
  "command": "bash",
  "path": "worker/scripts/count.sh"
}
"""
STOP = QUERY = """\
{
  "worker_id": "d5feef60-3029-11e9-b210-d663bd873d93",
  "job_id": "4c5ced1c-5ea9-40f8-90ce-63d09cea26f6"
}
"""
ERROR = """\
{
  "error": "worker not found"
}
"""
STOPPED = """\
{
  "success": true
}
"""
QUERIED = """\
{
  "done": true,
  "error": true,
  "error_text": "signal: killed"
}
"""
CALLS = {"/start": START, "/stop": STOP, "/query": QUERY}
EXAMPLE_JOB = "4c5ced1c-5ea9-40f8-90ce-63d09cea26f6"


@pytest.fixture
def anyio_backend() -> str:
    """The server is a process of its own."""
    return "asyncio"


def is_the_documents(answer: Answer, line: str, body: str) -> None:
    """Status and body, field for field and in its order."""
    assert answer.line == line
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json.items()) == list(json.loads(body).items())


async def starts(server: Server, folder: Path) -> str:
    """The document's start, of a script that says when it runs."""
    told = folder / "told"
    (folder / "root/worker/scripts/count.sh").write_text(f"touch {told}\nexec sleep 600\n")
    started = await server.ask("job-runner", "POST /start", START)
    assert started.line == "201 Created"
    assert list(started.json) == ["job_id"]
    await until(told.exists)
    told.unlink()
    return str(started.json["job_id"])


@pytest.mark.parametrize("exact", [True, False])
async def test_every_request_of_the_document(tmp_path: Path, exact: bool) -> None:
    """With ``exact`` the errors have the document's status too; else theirs are HTTP's own."""
    error = "500 Internal Server Error" if exact else "404 Not Found"
    async with served(tmp_path, exact=exact) as server:
        for path, body in CALLS.items():
            is_the_documents(await server.ask("job-runner", f"POST {path}", body), error, ERROR)
            below = await server.ask_below("job-runner", f"POST {path}", body)
            is_the_documents(below, error, ERROR)
        await server.farm.join(WORKER, 1)
        job = await starts(server, tmp_path)
        query, stop = (text.replace(EXAMPLE_JOB, job) for text in (QUERY, STOP))
        running = await server.ask("job-runner", "POST /query", query)
        assert running.line == "200 OK"
        assert running.json == {"done": False, "error": False, "error_text": ""}
        stopped = await server.ask("job-runner", "POST /stop", stop)
        is_the_documents(stopped, "200 OK", STOPPED)
        queried = await server.until(
            lambda answer: answer.json["done"], "job-runner", "POST /query", query
        )
        is_the_documents(queried, "200 OK", QUERIED)
        is_the_documents(
            await server.ask_below("job-runner", "POST /query", query), "200 OK", QUERIED
        )


async def test_a_worker_that_is_gone_and_a_program_that_is_not_there(tmp_path: Path) -> None:
    """As the running program answers: what it calls an unknown executable shows at the end here, since only the worker knows."""
    async with served(tmp_path, exact=True, lease_ms=2_000) as server:
        child = await server.farm.join(WORKER, 1)
        absent = await server.ask("job-runner", "POST /start", START.replace("bash", "nosuchcmd"))
        assert absent.line == "201 Created"
        query = QUERY.replace(EXAMPLE_JOB, absent.json["job_id"])
        told = await server.until(
            lambda answer: answer.json["done"], "job-runner", "POST /query", query
        )
        assert told.json["error"] is True
        assert "nosuchcmd" in told.json["error_text"]
        job = await starts(server, tmp_path)
        child.kill()
        dead = await server.until(
            lambda answer: answer.status != 201, "job-runner", "POST /start", START
        )
        assert dead.line == "500 Internal Server Error"
        wanted = "rpc error: code = DeadlineExceeded desc = context deadline exceeded"
        assert dead.json == {"error": wanted}
        stop = STOP.replace(EXAMPLE_JOB, job)
        assert (await server.ask("job-runner", "POST /stop", stop)).json == {"success": True}


async def test_a_worker_that_comes_back_and_one_that_leaves(tmp_path: Path) -> None:
    """A job is asked after by the id under which it was started, also when the worker's process is another; who left is not found."""
    async with served(tmp_path, ["job-runner"], exact=True) as server:
        child = await server.farm.join(WORKER, 1)
        async with server.farm.client() as client:
            (id_,) = [worker.id for worker in await client.workers()]
        by_id = START.replace(WORKER, id_)
        (tmp_path / "root/worker/scripts/count.sh").write_text("exit 3\n")
        started = await server.ask("job-runner", "POST /start", by_id)
        query = json.dumps({"worker_id": id_, "job_id": started.json["job_id"]})
        ended = await server.until(
            lambda answer: answer.json["done"], "job-runner", "POST /query", query
        )
        assert ended.json["error_text"] == "exit status 3"
        child.kill()
        child = await server.farm.join(WORKER, 1)

        async def is_another(client: Client) -> bool:
            return [worker.incarnation for worker in await client.workers()] == [2]

        await server.farm.until(is_another)
        again = await server.ask("job-runner", "POST /query", query)
        assert (again.status, again.json) == (200, ended.json)
        child.process.terminate()
        await anyio.to_thread.run_sync(child.process.wait)
        gone = await server.ask("job-runner", "POST /start", START)
        is_the_documents(gone, "500 Internal Server Error", ERROR)
