"""The TANGO REST guide, request by request, as bytes over a socket: as Project Manager, and as member container."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from tests.documents.served import CONTAINERS, USER, Answer, Server, served

pytestmark = [pytest.mark.anyio, pytest.mark.system]

FORM = "application/x-www-form-urlencoded"
REPORT = "/?status_report&container_id={}&user_id={}&project_id={}&status={}"
START = "/?start&user_id={}&project_id={}&"
STOP = "/?stop&user_id={}&project_id={}&"
STATUS = "/?status_request&user_id={}&project_id={}&"
"""The guide's addresses, with the ``&`` at which its lines break."""

OUTCOMES = {"success": "completed", "failed": "failed"}
"""What a member reports, and what it is then."""


@pytest.fixture
def anyio_backend() -> str:
    """The server is a process of its own."""
    return "asyncio"


async def reported(server: Server, container: str, status: str) -> None:
    """A container is started, comes to an end, and reports it: 200, and so it is."""
    ids = f"user_id={USER}&project_id={container}"
    body = f"{ids}&container_id={container}"
    started = await server.ask("tango", "POST /api/container_start", body, FORM)
    assert started.line == "200 OK"

    async def until(word: str) -> None:
        await server.until(
            lambda answer: answer.json["container_status"] == word,
            "tango",
            "POST /api/status_request",
            ids,
            FORM,
        )

    await until("running")
    server.members.words[USER, container] = OUTCOMES[status]
    told = await server.ask("tango", "GET " + REPORT.format(container, USER, container, status))
    assert told.line == "200 OK"
    await until(OUTCOMES[status])
    # It is so already, wherever it is told again.
    again = REPORT.format(container, USER, container, status)
    assert (await server.ask_below("tango", f"GET {again}")).line == "200 OK"


async def test_status_report_of_every_container(tmp_path: Path) -> None:
    async with served(tmp_path) as server, anyio.create_task_group() as group:
        for number, container in enumerate(CONTAINERS):
            group.start_soon(reported, server, container, list(OUTCOMES)[number % 2])


def is_said(answer: Answer, word: str) -> bool:
    """200 OK with one word as plain text."""
    assert answer.line == "200 OK"
    assert answer.headers["content-type"].partition(";")[0] == "text/plain"
    return answer.body.decode() == word


async def test_start_stop_and_status_request_of_a_member(tmp_path: Path) -> None:
    """Every word of the guide, from a member whose one place does what its project's name says."""
    wire = "tango-member"
    async with served(tmp_path) as server:

        async def says(target: str, project: str, word: str, user: str = USER) -> None:
            request = "GET " + target.format(user, project)
            # A Project Manager sends a type with its GETs.
            assert is_said(await server.ask(wire, request, kind="text/plain"), word), word
            assert target != STATUS or is_said(await server.ask_below(wire, request), word), word

        async def until(project: str, word: str) -> None:
            request = "GET " + STATUS.format(USER, project)
            await server.until(lambda answer: is_said(answer, word), wire, request)

        await says(STATUS, "", "ready", user="")
        await says(STOP, "good", "error")
        await says(START, "", "error", user="")
        for project, word in (("good", "completed"), ("bad", "failed")):
            await says(START, project, "starting")
            await until(project, word)
            await says(STATUS, "", "ready", user="")
        await says(START, "long", "starting")
        await until("long", "running")
        # There is one place: who comes second has started, and does not run.
        await says(START, "next", "starting")
        await says(STATUS, "next", "started")
        for project in ("next", "long"):
            await says(STOP, project, "finished")
            await until(project, "stopped")
