"""A full disk, little memory, few file descriptors and wrong clocks: what happens around processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from random import Random
from uuid import uuid4

import anyio
import httpx
import psutil
from anyio.abc import SocketAttribute, SocketStream

from orchestra.compose import connect
from orchestra.errors import StoreFailed, Unavailable
from orchestra.statemachine.commands import OpenProject
from orchestra.testing.chaos.farm import Farm
from orchestra.testing.chaos.processes import BOUND_S, LOOK_S, Child
from orchestra.testing.chaos.proxy import HOST
from orchestra.testing.chaos.tally import SERVER_S, Tally
from orchestra.testing.chaos.troubles import (
    AWAY,
    MOMENT_S,
    WORK_AFTER_SERVER,
    resumed,
    was_away,
)
from orchestra.testing.chaos.undertaker import SMALL

DISK_BYTES = 64 * 1024 * 1024
"""Of the small file system: an episode leaves a few megabytes there."""

BALLAST = "ballast"
"""The file that fills it."""

PIECE_BYTES = 64 * 1024

FULL_S = 10.0
"""Something is refused within this time of a disk being full."""

ROOMY = 3
"""So much is stored on a full disk before a limit on the size of files stands in: a log that is used over again has room for a while."""

PAGE_BYTES = 4_096
"""Behind it nothing is written to any file by a process under that limit: a commit is longer."""

HELD_S = 0.5
"""The disk stays full so much longer, and memory scarce so long."""

ACCEPTED_S = 1.0
"""What was not accepted within this time will not be: twice what it takes on a busy machine."""

ROOM_BYTES = 2 * 1024 * 1024
"""What a server may take beside what it has, when memory gets scarce."""

BODY_BYTES = 8 * 1024 * 1024
"""Of a request that needs more than that."""

BODIES = 4

BUG = 500
"""The status of what was not planned."""

DESCRIPTORS = 64
CONNECTIONS = 100
"""More than there are descriptors for."""

STEPS_S = (-3_600, -60, -30, 30, 60, 3_600)
"""How far a clock is set at once."""

CLOCK_S_MAX = 6 * 3_600
"""How far it is off at most: far from what forgets keys (a day)."""

MONTH_S = 30 * 24 * 3_600
"""How far a clock is off that its machine lost without power, or that somebody set by hand."""

FELT_S = 1.2
"""A clock that is set is read again by its process within a second."""

FREED = "work and answers after there is room on the disk"
MEMORY_BACK = "work and answers after there is memory"
CLOSED = "work and answers after there are descriptors"
STEPPED = "work and answers after a step of the clock"
MONTH_LATER = "work and answers after a start by another calendar"

UNLIMITED = (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY)


@contextmanager
def small_disk(folder: Path) -> Generator[Path | None]:
    """A small file system for the server's file, where one may be mounted; None elsewhere."""
    place = folder / SMALL
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    mounted = False
    if mount and umount and os.geteuid() == 0 and sys.platform.startswith("linux"):
        words = [mount, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
        done = subprocess.run(words, check=False, capture_output=True)  # noqa: S603 - mount itself, and words of ours
        mounted = done.returncode == 0
    try:
        yield place if mounted else None
    finally:
        if mounted and umount:
            subprocess.run([umount, "--lazy", str(place)], check=True)  # noqa: S603 - umount itself, and our own folder


def fill(farm: Farm) -> None:
    """From now on the server's file can not grow."""
    if farm.data.parent.name == SMALL:
        _fill(farm.data.parent / BALLAST)
        return
    _limit(farm)


def _limit(farm: Farm) -> None:
    process = psutil.Process(farm.running_server.pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (PAGE_BYTES, psutil.RLIM_INFINITY))


def make_room(farm: Farm) -> None:
    """It can again."""
    if farm.data.parent.name == SMALL:
        (farm.data.parent / BALLAST).unlink()
    psutil.Process(farm.running_server.pid).rlimit(psutil.RLIMIT_FSIZE, UNLIMITED)


async def refused(farm: Farm) -> int | None:
    """
    Ask for one thing after the other that has to be stored, until one is refused because it can not be.

    The clients may have no more to ask for by then: they wait for ends, which are not stored either.

    Returns:
        How many were stored before; None when none was refused in time.
    """
    stored = 0
    with anyio.move_on_after(FULL_S):
        while True:
            try:
                async with connect(farm.url) as client:
                    while True:
                        await client.asker.ask(OpenProject(f"ballast-{uuid4().hex}"))
                        stored += 1
                        if stored == ROOMY:
                            _limit(farm)
            except StoreFailed:
                return stored
            except Unavailable:
                await anyio.sleep(LOOK_S)
    return None


async def disk(farm: Farm, rng: Random, tally: Tally) -> None:
    """The disk gets full (a small file system, or a limit on the size of files), and after a while there is room again."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    fill(farm)
    farm.risk(farm.workers)
    stored = await refused(farm)
    if stored is None:
        tally.broken.append("the disk was full, and nothing was refused for it")
    else:
        tally.counts["times something was refused because it could not be stored"] += 1
        tally.counts["times the log had room, and a limit on the size of files stood in"] += (
            stored >= ROOMY
        )
    await anyio.sleep(HELD_S)
    since = farm.journal.mark()
    make_room(farm)
    tally.struck += 1
    await resumed(farm, tally, FREED, SERVER_S, since)


def _fill(ballast: Path) -> None:
    """Leave no byte of a file system free."""
    for piece in (PIECE_BYTES, 4_096):
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.tell() < 2 * DISK_BYTES:
                file.write(bytes(piece))


async def memory(farm: Farm, rng: Random, tally: Tally) -> None:
    """The server may take hardly any more memory while it is sent what needs some; after a while it may again."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    server = farm.running_server
    process = psutil.Process(server.pid)
    farm.risk(farm.workers)
    taken = process.memory_info().vms
    process.rlimit(psutil.RLIMIT_AS, (taken + ROOM_BYTES, psutil.RLIM_INFINITY))
    async with anyio.create_task_group() as group:
        for _ in range(BODIES):
            group.start_soon(_burden, farm, tally)
    await anyio.sleep(HELD_S)
    tally.struck += 1
    if server.ended:
        await _started_again(farm, server, tally)
        return
    since = farm.journal.mark()
    process.rlimit(psutil.RLIMIT_AS, UNLIMITED)
    await resumed(farm, tally, MEMORY_BACK, SERVER_S, since)


async def _started_again(farm: Farm, server: Child, tally: Tally) -> None:
    tally.counts[f"servers that ended for want of memory, with code {await server.wait()}"] += 1
    await farm.serve()
    await resumed(farm, tally, WORK_AFTER_SERVER, SERVER_S, farm.journal.mark())


async def _burden(farm: Farm, tally: Tally) -> None:
    """A large request that is refused when it was read."""
    body = b'{"name": "' + b"x" * BODY_BYTES + b'", "stages": []}'
    answer = "not answered"
    with contextlib.suppress(httpx.HTTPError):
        async with httpx.AsyncClient(base_url=farm.url, timeout=FULL_S) as http:
            words = {"content-type": "application/json"}
            response = await http.post("/api/v1/jobs", content=body, headers=words)
            answer = f"answered with {response.status_code}"
            if response.status_code == BUG:
                tally.broken.append(f"a large request was {answer}: want of memory is no bug")
    tally.counts[f"large requests that were {answer}"] += 1


async def descriptors(farm: Farm, rng: Random, tally: Tally) -> None:
    """The server may open 64 files, and more connections come than that; after a while they are gone."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    process = psutil.Process(farm.running_server.pid)
    process.rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, process.rlimit(psutil.RLIMIT_NOFILE)[1]))
    streams: list[SocketStream] = []
    async with anyio.create_task_group() as group:
        for _ in range(CONNECTIONS):
            group.start_soon(_opened, farm.port, streams)
    accepted = 0
    with anyio.move_on_after(ACCEPTED_S):
        while accepted < CONNECTIONS:
            await anyio.sleep(LOOK_S)
            accepted = max(accepted, _accepted(process, streams))
    since = farm.journal.mark()
    for stream in streams:
        await anyio.aclose_forcefully(stream)
    tally.struck += 1
    tally.counts["connections that were refused or not accepted"] += CONNECTIONS - accepted
    if accepted == CONNECTIONS:
        tally.broken.append(
            f"{CONNECTIONS} connections were accepted with {DESCRIPTORS} descriptors"
        )
    await resumed(farm, tally, CLOSED, SERVER_S, since)


async def _opened(port: int, streams: list[SocketStream]) -> None:
    with contextlib.suppress(OSError):
        streams.append(await anyio.connect_tcp(HOST, port))


def _accepted(server: psutil.Process, streams: Sequence[SocketStream]) -> int:
    """How many of these connections the server has a descriptor of."""
    ours = {stream.extra_attributes[SocketAttribute.local_port]() for stream in streams}
    return sum(bool(each.raddr) and each.raddr.port in ours for each in server.net_connections())


def fake_clock() -> Path | None:
    """The library by which a process's clock is set (Debian's package ``faketime``); None when it is not installed."""
    for folder in (Path("/usr/lib"), Path("/usr/local/lib")):
        for found in folder.glob("**/faketime/libfaketimeMT.so.1"):
            return found
    return None


async def clock(farm: Farm, rng: Random, tally: Tally) -> None:
    """The clock of the server or of a worker is set, back or forth, by up to an hour."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    names = ["server", "server", *(worker.folder.name for worker in farm.workers)]
    name = rng.choice(names)
    off_s = _off_s(farm, name)
    _set_off(
        farm, name, rng.choice([off_s + by for by in STEPS_S if abs(off_s + by) <= CLOCK_S_MAX])
    )
    tally.struck += 1
    tally.counts[f"steps of the {'server' if name == 'server' else 'worker'}'s clock"] += 1
    await anyio.sleep(FELT_S)
    await resumed(farm, tally, STEPPED, SERVER_S, farm.journal.mark())


def _off_s(farm: Farm, name: str) -> int:
    """How far the clock of a process is off."""
    return int(farm.clock_of(name).read_text().strip().removesuffix("s"))


def _set_off(farm: Farm, name: str, off_s: int) -> None:
    farm.clock_of(name).write_text(f"{off_s:+d}s\n")


async def calendar(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGTERM of the server, whose machine's calendar is another one when it is started again: by a month, back or forth."""
    await anyio.sleep(rng.uniform(0, MOMENT_S))
    since_s = time.monotonic()
    await farm.running_server.end()
    # One time to another month, the next time to the right one: every other start goes back.
    off_s = 0 if _off_s(farm, "server") else rng.choice((-MONTH_S, MONTH_S))
    _set_off(farm, "server", off_s)
    await farm.serve()
    tally.recovered(AWAY, farm.ready_s - since_s, BOUND_S)
    was_away(farm, tally, farm.ready_s - since_s)
    tally.struck += 1
    async with httpx.AsyncClient(base_url=farm.url, timeout=BOUND_S) as http:
        told = parsedate_to_datetime((await http.get("/")).headers["date"])
    if abs(told.timestamp() - time.time() - off_s) > MONTH_S / 2:
        tally.broken.append("the server does not go by the clock that was set")
    await resumed(farm, tally, MONTH_LATER, SERVER_S, farm.journal.mark())
