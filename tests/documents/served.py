"""One server with all wires on, each below its name and at the root of a port of its own; and a client that knows nothing of orchestra."""

from __future__ import annotations

import http.client
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import attrs

from orchestra.testing.free_port import free_port
from tests.engines.member_program import Program, program
from tests.system.farm import PAUSE_S, Farm, open_farm

BOUND_S = 60.0
USER = "kyunghee"
CONTAINERS = (
    "labelling",
    "bms",
    "vis2code",
    "backbone_nas",
    "neck_nas",
    "code_gen",
    "cloud_deploy",
    "ondevice_deploy",
)
"""The values of ``container_id`` in the TANGO guide."""

TABLES = {
    "job-runner": """\
commands = ["bash", "nosuchcmd"]
root = "{root}"
exact = {exact}
""",
    "flamenco": """\
[dialects.flamenco.workers."fsiddi-*"]
push = true
[dialects.flamenco.render_settings]
draft = "/srv/flamenco/draft.py"
""",
    "tango": """\
workflow = ["code_gen"]
heartbeat = "100ms"
[dialects.tango.projects]
{projects}
[dialects.tango.members]
{members}
""",
    "tango-member": """\
container_id = "code_gen"
argv = ["/bin/sh", "-c", 'case $1 in good) exit 0;; bad) exit 3;; *) exec sleep 600;; esac', "task", "{{project_id}}"]
""",
}
"""The task of the member container goes by the project's name: it completes, fails, or works on."""


@attrs.frozen
class Answer:
    """What came back: the status line's two halves, header fields in small letters, the body."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def line(self) -> str:
        """As documents show it."""
        return f"{self.status} {self.reason}"

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def exchange(port: int, request: str, body: str = "", kind: str = "") -> Answer:
    """Send a request line and a body; the version of HTTP may stand behind, as in documents."""
    method, target, *_ = request.split(" ")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=BOUND_S)
    try:
        headers = {"Content-Type": kind} if kind else {}
        connection.request(method, target, body.encode() or None, headers)
        reply = connection.getresponse()
        fields = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, reply.reason, fields, reply.read())
    finally:
        connection.close()


@attrs.define
class Server:
    """The server, and where each wire is served."""

    farm: Farm
    ports: Mapping[str, int]
    members: Program

    async def ask(self, wire: str, request: str, body: str = "", kind: str = "") -> Answer:
        """At the root of the wire's own port."""
        return await anyio.to_thread.run_sync(
            partial(exchange, self.ports[wire], request, body, kind)
        )

    async def ask_below(self, wire: str, request: str, body: str = "", kind: str = "") -> Answer:
        """Below the wire's name at the main port."""
        method, target = request.split(" ", 1)
        request = f"{method} /{wire}{target}"
        return await anyio.to_thread.run_sync(
            partial(exchange, self.farm.port, request, body, kind)
        )

    async def until(
        self, met: Callable[[Answer], bool], wire: str, request: str, body: str = "", kind: str = ""
    ) -> Answer:
        """Ask until the answer is so."""
        answer = None
        with anyio.move_on_after(BOUND_S):
            while True:
                answer = await self.ask(wire, request, body, kind)
                if met(answer):
                    return answer
                await anyio.sleep(PAUSE_S)
        raise AssertionError(answer)


@asynccontextmanager
async def served(
    folder: Path,
    wires: Sequence[str] = tuple(TABLES),
    *,
    exact: bool = False,
    lease_ms: int = 6_000,
) -> AsyncGenerator[Server]:
    """Wires over one core, all or some, and the member containers of the Project Manager as one program that listens."""
    root = folder / "root"
    (root / "worker/scripts").mkdir(parents=True, exist_ok=True)
    ports = {name: free_port() for name in wires}
    with program() as members:
        tables = "".join(f"[dialects.{name}]\n{TABLES[name]}" for name in wires).format(
            root=root,
            exact=str(exact).lower(),
            projects="\n".join(f'"{USER}/{name}" = ["{name}"]' for name in CONTAINERS),
            members="\n".join(f'{name} = "127.0.0.1:{members.port}"' for name in CONTAINERS),
        )
        (folder / "all.toml").write_text(tables)
        words = ["--config", str(folder / "all.toml")]
        for name, port in ports.items():
            words += ["--dialect", f"{name}=127.0.0.1:{port}"]
        async with open_farm(folder, lease_ms=lease_ms) as farm:
            await farm.serve(further=words, slots=int("tango-member" in wires))
            yield Server(farm, ports, members)
