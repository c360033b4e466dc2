"""All of it against real servers that are started for it, on the loopback net alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.hostile import corpus, flood, frames, slow
from orchestra.testing.linearizability import Server

ROOM: Mapping[str, str] = {"ORCHESTRA_LIMITS_CONNECTIONS_MAX": "4000"}
"""For slow sockets and good clients at the same time."""


@attrs.frozen(slots=True)
class Plan:
    """How much of each."""

    slow: int
    clients: int
    flood: int


@attrs.frozen(slots=True)
class Besieged:
    """What came of it; ``grown`` is what the server grew by under each attack, in bytes."""

    cases: int
    grown: Mapping[str, int]
    slowed: slow.Slowed
    flooded: flood.Flooded


@asynccontextmanager
async def serving(settings: Mapping[str, str]) -> AsyncGenerator[Server]:
    """A server with these settings, in a folder of its own; it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="orchestra-hostile-") as folder:
        server = Server(Path(folder), settings=settings)
        await server.start()
        try:
            yield server
        finally:
            server.kill()


@asynccontextmanager
async def working(server: Server) -> AsyncGenerator[None]:
    """A worker of this server."""
    words = ["worker", server.url, "--slots", "2", "--folder", str(server.folder / "work")]
    with (server.folder / "worker.log").open("ab") as talk:
        worker = subprocess.Popen(  # noqa: S603, ASYNC220 - this very Python and this very package
            [sys.executable, "-m", "orchestra", *words],
            stdin=subprocess.DEVNULL,
            stdout=talk,
            stderr=talk,
        )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()


async def besiege(plan: Plan, say: Callable[[str], None]) -> Besieged:
    """
    The corpus, the attacks, the slow sockets and the flood, one after the other.

    Raises:
        FuzzBroken: Something was not as planned.
        TimeoutError: Something did not end.
    """
    async with serving(ROOM) as server:
        await corpus.play(server.port)
        say(f"{len(corpus.CORPUS)} cases of bytes")
        grown: dict[str, int] = {}
        for tried in frames.ATTACKS:
            grown[tried.name] = await frames.attack(server.port, server.pid, tried)
            say(f"{tried.name}: {grown[tried.name]:,} bytes")
        slowed = await slow.slow(server.port, sockets=plan.slow, clients=plan.clients)
        say(f"{slowed.sockets} slow sockets: gone after {slowed.gone_s:.1f} s")
        await corpus.play(server.port, corpus.CORPUS[-1:])
    async with serving(flood.LIMITS) as server, working(server):
        flooded = await flood.flood(server.port, server.pid, clients=8, requests=plan.flood)
        if flooded.refused < flooded.taken:
            raise FuzzBroken("that was no flood: most of it was taken")
    return Besieged(len(corpus.CORPUS), grown, slowed, flooded)
