"""
The Project Manager as a process, and programs as its members: a member that is dead, reports as the real programs send them, and a
manager that is killed while a member works.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from orchestra.testing.free_port import free_port
from tests.engines.member_program import Program, program
from tests.system.farm import PAUSE_S, Child

pytestmark = [pytest.mark.anyio, pytest.mark.system]

BOUND_S = 60.0
IDS = "user_id=kyunghee&project_id=1"
PAIR = ("kyunghee", "1")
TABLE = """\
[dialects.tango]
listen = "127.0.0.1:{port}"
workflow = ["autonn", "code_gen"]
heartbeat = "{heartbeat}"

[dialects.tango.members]
autonn = "127.0.0.1:{autonn}"
code_gen = "127.0.0.1:{code_gen}"
"""
AS_A_PROGRAM = {
    "Host": "0.0.0.0:8085",
    "Origin": "http://0.0.0.0:8891",
    "Accept": "application/json, text/plain",
    "Access-Control_Allow_Origin": "*",
}
"""Header fields of a report, as measured."""


@pytest.fixture
def anyio_backend() -> str:
    """The server is a process of its own."""
    return "asyncio"


class Manager:
    """The process, and how to speak to it."""

    def __init__(
        self, folder: Path, client: httpx.AsyncClient, autonn: int, code_gen: int, heartbeat: str
    ) -> None:
        self._folder, self._client = folder, client
        self.port = free_port()
        table = TABLE.format(port=self.port, autonn=autonn, code_gen=code_gen, heartbeat=heartbeat)
        (folder / "pm.toml").write_text(table)
        self.main = ""
        self.children: list[Child] = []

    async def start(self) -> Child:
        words = ["serve", "--listen", "127.0.0.1:0", "--local-worker", "0", "--json"]
        words += ["--data", str(self._folder / "pm.db"), "--config", str(self._folder / "pm.toml")]
        child = Child([sys.executable, "-m", "orchestra", *words], {}, self._folder / "pm.err")
        self.children.append(child)
        self.main = (await child.line())["url"]
        return child

    async def api(self, call: str, form: str = IDS, *, below: bool = False) -> dict[str, Any]:
        """One call, at its own port or below the main one."""
        url = f"{self.main}/tango" if below else f"http://127.0.0.1:{self.port}"
        headers = {"content-type": "application/x-www-form-urlencoded"}
        reply = await self._client.post(f"{url}/api/{call}", content=form, headers=headers)
        assert reply.status_code == 200, reply.text
        return dict(reply.json())

    async def until(self, container: str, word: str) -> dict[str, Any]:
        """Ask until the project is there."""
        shown: dict[str, Any] = {}
        with anyio.move_on_after(BOUND_S):
            while True:
                shown = await self.api("status_request")
                if (shown["container"], shown["container_status"]) == (container, word):
                    return shown
                await anyio.sleep(PAUSE_S)
        raise AssertionError(f"not {container} {word}, but {shown}")

    async def report(self, container: str, status: str, **headers: str) -> int:
        url = f"http://127.0.0.1:{self.port}/status_report"
        query = f"container_id={container}&{IDS}&status={status}"
        reply = await self._client.get(f"{url}?{query}", headers={**AS_A_PROGRAM, **headers})
        return reply.status_code


@asynccontextmanager
async def managed(
    folder: Path, autonn: int, code_gen: int, heartbeat: str = "100ms"
) -> AsyncGenerator[Manager]:
    async with httpx.AsyncClient(timeout=BOUND_S) as client:
        made = Manager(folder, client, autonn, code_gen, heartbeat)
        try:
            await made.start()
            yield made
        finally:
            for child in made.children:
                child.kill()


async def asked(member: Program, verb: str, times: int = 1) -> None:
    await anyio.to_thread.run_sync(partial(member.wait_for, verb, times, BOUND_S))


async def test_a_report_moves_a_pipeline_on_at_once(tmp_path: Path) -> None:
    """With a heartbeat of an hour, only reports can have moved it; none that is not true, and none from a browser."""
    with program() as autonn, program() as code_gen:
        async with managed(tmp_path, autonn.port, code_gen.port, "1h") as pm:
            await pm.api("container_start", f"{IDS}&container_id=autonn", below=True)
            await pm.until("autonn", "running")
            before = autonn.asked.count("status_request")
            assert await pm.report("autonn", "success") == 200
            await asked(autonn, "status_request", before + 1)
            assert (await pm.api("status_request"))["container_status"] == "running"
            autonn.words[PAIR] = "completed"
            assert await pm.report("autonn", "success", **{"Sec-Fetch-Site": "cross-site"}) == 403
            assert await pm.report("autonn", "success", Origin="http://evil.example") == 403
            assert await pm.report("autonn", "success", Host="evil.example") == 403
            assert (await pm.api("status_request"))["container_status"] == "running"
            assert await pm.report("autonn", "success") == 200
            await pm.until("code_gen", "running")
            code_gen.words[PAIR] = "completed"
            assert await pm.report("code_gen", "success") == 200
            shown = await pm.until("code_gen", "completed")
            assert "start: 200 started" in shown["message"]
            # Late and repeated ones: it is so already, or they are refused.
            assert await pm.report("autonn", "success") == 200
            assert await pm.report("autonn", "failed") == 409
    assert autonn.asked.count("start") == code_gen.asked.count("start") == 1


async def test_the_manager_is_killed_while_a_member_works(tmp_path: Path) -> None:
    """The next one finds the run where it is, and what ended in between; nothing is started twice."""
    with program() as autonn, program() as code_gen:
        async with managed(tmp_path, autonn.port, code_gen.port) as pm:
            await pm.api("container_start", f"{IDS}&container_id=autonn")
            await pm.until("autonn", "running")
            pm.children[-1].kill()
            await pm.start()
            await pm.until("autonn", "running")
            pm.children[-1].kill()
            autonn.words[PAIR] = "completed"
            await pm.start()
            await pm.until("code_gen", "running")
            # In good order too.
            child = pm.children[-1]
            child.process.terminate()
            await anyio.to_thread.run_sync(partial(child.process.wait, BOUND_S))
            code_gen.words[PAIR] = "completed"
            await pm.start()
            await pm.until("code_gen", "completed")
    assert autonn.asked.count("start") == code_gen.asked.count("start") == 1
    assert "stop" not in [*autonn.asked, *code_gen.asked]


async def test_a_stage_waits_for_a_container_that_is_away(tmp_path: Path) -> None:
    """And says so, as a worker that is paused for that reason; it begins when the container answers."""
    port = free_port()
    async with AsyncExitStack() as stack:
        code_gen = stack.enter_context(program())
        pm = await stack.enter_async_context(managed(tmp_path, port, code_gen.port))
        await pm.api("container_start", f"{IDS}&container_id=autonn")
        with anyio.fail_after(BOUND_S):
            paused = f"is paused: tango-autonn (autonn at 127.0.0.1:{port}: nobody listens there)"
            while paused not in (await pm.api("status_request"))["message"]:
                await anyio.sleep(PAUSE_S)
        autonn = stack.enter_context(program(port))
        await pm.until("autonn", "running")
        await pm.api("container_stop", f"{IDS}&container_id=autonn")
        await pm.until("autonn", "stopped")
        assert autonn.words[PAIR] == "stopped"
        assert code_gen.asked.count("start") == 0
