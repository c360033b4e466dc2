"""All of it against real servers that are started for it, on the loopback net alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
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


@attrs.define(slots=True)
class Besieged:
    """
    What came of it.

    Args:
        cases: Of bytes, each answered as planned.
        grown: What the server grew by under each attack, in bytes.
        slowed: What came of slow sockets; None when it did not come to that.
        flooded: What came of the flood; likewise.
        broken: What was not as it is promised; empty when all was.
    """

    cases: int = 0
    grown: dict[str, int] = attrs.Factory(dict[str, int])
    slowed: slow.Slowed | None = None
    flooded: flood.Flooded | None = None
    broken: list[str] = attrs.Factory(list[str])


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
    """The corpus, the attacks and the slow sockets; then, whatever came of these, the flood. What is broken is told in what is returned."""
    found = Besieged()
    for part in (_bytes_and_slowness, _flood):
        try:
            await part(plan, found, say)
        except* FuzzBroken as errors:
            found.broken += [str(each) for each in _single(errors)]
        except* TimeoutError:
            found.broken.append(f"{part.__name__.strip('_')}: something did not end in time")
    return found


def _single(errors: BaseExceptionGroup[FuzzBroken]) -> Iterator[FuzzBroken]:
    """Those that are no groups. What several tasks did together comes as a group of groups."""
    for each in errors.exceptions:
        yield from _single(each) if isinstance(each, BaseExceptionGroup) else (each,)


async def _bytes_and_slowness(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
    async with serving(ROOM) as server:
        await corpus.play(server.port)
        found.cases = len(corpus.CORPUS)
        say(f"{found.cases} cases of bytes")
        for tried in frames.ATTACKS:
            found.grown[tried.name] = await frames.attack(server.port, server.pid, tried)
            say(f"{tried.name}: {found.grown[tried.name]:,} bytes")
        slowed = await slow.slow(server.port, sockets=plan.slow, clients=plan.clients)
        found.slowed = slowed
        found.broken += slowed.broken()
        say(f"{slowed.sockets} slow sockets: gone after {slowed.watched.gone_s:.1f} s")
        await corpus.play(server.port, corpus.CORPUS[-1:])


async def _flood(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
    async with serving(flood.LIMITS) as server, working(server):
        flooded = await flood.flood(server.port, server.pid, clients=8, requests=plan.flood)
        found.flooded = flooded
        found.broken += flooded.broken()
        say(f"a flood of {flooded.asked:,} requests, {flooded.taken:,} taken")
