"""A member container as a process: driven over HTTP, its task killed, itself killed with a report under way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import anyio
import httpx
import pytest

from orchestra.testing.free_port import free_port
from tests.system.farm import PAUSE_S, Child

pytestmark = [pytest.mark.anyio, pytest.mark.system]

BOUND_S = 60.0
IDS = "user_id=kyunghee&project_id=1"
SLEEPS = ["/bin/sh", "-c", 'echo $$ > "$TOLD.new"; mv "$TOLD.new" "$TOLD"; exec sleep 600']
TASKS = """\
import orchestra

app = orchestra.App()


@app.task
def generate(user_id: str, project_id: str) -> str:
    return f"{user_id}/{project_id}"
"""


class Manager(ThreadingHTTPServer):
    """Takes reports, and keeps their addresses."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Reported)
        self.reports: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Reported(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Manager)
        assert self.headers["Host"] == self.server.address
        self.server.reports.append(self.path)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status": 200}')

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def listening(port: int = 0) -> Generator[Manager]:
    with Manager(port) as manager:
        thread = threading.Thread(target=manager.serve_forever)
        thread.start()
        try:
            yield manager
        finally:
            manager.shutdown()
            thread.join()


class Container:
    """The process of a member, and how to ask it."""

    def __init__(self, folder: Path, client: httpx.AsyncClient, manager: str, table: str) -> None:
        self._folder = folder
        self._client = client
        self.port = free_port()
        (folder / "member.toml").write_text(
            f'[dialects.tango-member]\ncontainer_id = "code_gen"\nmanager = "{manager}"\n{table}\n'
        )
        (folder / "tango_tasks.py").write_text(TASKS)
        self.children: list[Child] = []

    async def start(self, *, keeps: bool = True) -> Child:
        """Start it, with a data file or in memory, and wait until it says that it serves."""
        words = ["serve", "--listen", "127.0.0.1:0"]
        words += ["--data", str(self._folder / "member.db")] if keeps else []
        words += ["--config", str(self._folder / "member.toml"), "--app", "tango_tasks:app"]
        words += ["--dialect", f"tango-member=127.0.0.1:{self.port}", "--json"]
        env = {**os.environ, "PYTHONPATH": str(self._folder)}
        child = Child([sys.executable, "-m", "orchestra", *words], env, self._folder / "member.err")
        self.children.append(child)
        await child.line()
        return child

    async def says(self, target: str) -> str:
        reply = await self._client.get(f"http://127.0.0.1:{self.port}{target}")
        assert (reply.status_code, reply.headers["content-type"]) == (200, "text/plain")
        return reply.text

    async def until(self, word: str) -> None:
        """Ask until it says so."""
        with anyio.fail_after(BOUND_S):
            while await self.says(f"/status_request?{IDS}") != word:
                await anyio.sleep(PAUSE_S)


@asynccontextmanager
async def container(folder: Path, manager: str, table: str) -> AsyncGenerator[Container]:
    async with httpx.AsyncClient(timeout=BOUND_S) as client:
        made = Container(folder, client, manager, table)
        try:
            yield made
        finally:
            for child in made.children:
                child.kill()


async def until_reported(manager: Manager) -> list[str]:
    with anyio.fail_after(BOUND_S):
        while not manager.reports:
            await anyio.sleep(PAUSE_S)
    return manager.reports


def program(told: Path) -> str:
    return f'argv = {SLEEPS!r}\nenv = {{ TOLD = "{told}" }}'.replace("\\'", "'")


async def test_a_task_of_an_app_is_driven_and_its_end_reported(tmp_path: Path) -> None:
    with listening() as manager:
        async with container(tmp_path, manager.address, 'task = "generate"') as member:
            await member.start()
            assert await member.says("/?status_request&user_id=&project_id=") == "ready"
            assert await member.says(f"/?start&{IDS}&") == "starting"
            await member.until("completed")
            report = f"/status_report?container_id=code_gen&{IDS}&status=success"
            assert await until_reported(manager) == [report]
            # A start that a page makes a browser send is refused by the door already, or by the dialect.
            url = f"http://127.0.0.1:{member.port}/start?user_id=page&project_id=1"
            linked = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
            async with httpx.AsyncClient(timeout=BOUND_S) as page:
                assert (await page.get(url, headers=linked)).status_code == 403
            assert await member.says("/status_request?user_id=page&project_id=1") == "ready"


async def test_a_task_that_is_killed_has_failed_and_a_stop_ends_it_but_not_the_member(
    tmp_path: Path,
) -> None:
    told = tmp_path / "told"
    with listening() as manager:
        async with container(tmp_path, manager.address, program(told)) as member:
            child = await member.start()
            assert await member.says(f"/start?{IDS}") == "starting"
            await member.until("running")
            with anyio.fail_after(BOUND_S):
                while not told.exists():
                    await anyio.sleep(PAUSE_S)
            os.kill(int(told.read_text()), signal.SIGKILL)
            await member.until("failed")
            report = f"/status_report?container_id=code_gen&{IDS}&status=failed"
            assert await until_reported(manager) == [report]

            told.unlink()
            assert await member.says(f"/start?{IDS}") == "starting"
            await member.until("running")
            assert await member.says(f"/stop?{IDS}") == "finished"
            await member.until("stopped")
            child.check()
            assert await member.says("/status_request?user_id=&project_id=") == "ready"


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_report_is_not_lost_when_a_member_with_a_file_is_killed(
    tmp_path: Path, keeps: bool
) -> None:
    port = free_port()
    async with container(tmp_path, f"127.0.0.1:{port}", 'task = "generate"') as member:
        child = await member.start(keeps=keeps)
        assert await member.says(f"/start?{IDS}") == "starting"
        await member.until("completed")
        with anyio.fail_after(BOUND_S):
            while "try 1 of" not in (tmp_path / "member.err").read_text():
                await anyio.sleep(PAUSE_S)
        child.kill()
        if not keeps:
            # The control: in memory the run is gone, and there is nothing to report.
            await member.start(keeps=False)
            assert await member.says(f"/status_request?{IDS}") == "ready"
            return
        with listening(port) as manager:
            await member.start()
            report = f"/status_report?container_id=code_gen&{IDS}&status=success"
            assert await until_reported(manager) == [report]
            assert await member.says(f"/status_request?{IDS}") == "completed"
