"""
Slow sockets against a real server under its usual limits: they are gone in time, and good clients never notice. The control is a server
that has no limits, and stands still for a second.
"""

from __future__ import annotations

import os
import signal

import anyio
import psutil
import pytest

from orchestra.testing.hostile.campaign import ROOM, serving
from orchestra.testing.hostile.slow import (
    GONE_S,
    WAITS_LONGER_MAX,
    GoodClients,
    Slowed,
    Watched,
    p99,
    slow,
)

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

SLOW = 200
"""2,000 are tried by ``python -m orchestra prove sockets --slow 2000 --clients 100``."""

CLIENTS = 5

CALM_S = 1.0
"""How long before and during is here told by a server beside it, which meets whatever else the machine does at the same time."""

STALLS = 2
"""A server that gets no processor for a while accepts later, and looks later: twice the longest that a good client waited."""

NOTICED_S = 0.25
"""With so few clients an answer takes milliseconds, and a machine with other things to do doubles that; nobody notices less than this."""

ENDLESS = {
    **ROOM,
    "ORCHESTRA_LIMITS_FIRST_BYTE_MS": "600000",
    "ORCHESTRA_LIMITS_HEADERS_MS": "600000",
    "ORCHESTRA_LIMITS_BODY_WINDOW_MS": "600000",
}

UNENDED = 20
"""Slow sockets of the control."""

STILL_S = 1.0
"""So long a server that is stopped and goes on again answers nobody."""

LOOK_S = 0.02


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_200_slow_sockets_are_gone_in_time_and_good_clients_go_on() -> None:
    async with serving(ROOM) as attacked, serving(ENDLESS) as spared:
        slowed, beside = await _attacked(attacked.port, spared.port)
        assert attacked.pid  # it lives
        assert slowed.watched.left == 0
        assert slowed.watched.gone_s <= GONE_S + STALLS * slowed.during_worst_s
        assert slowed.watched.gone_s > 2, "nobody waited for the limits: not they ended the sockets"
        assert slowed.good > 100
        assert slowed.during_p99_s <= WAITS_LONGER_MAX * p99(beside) + NOTICED_S

        broken = await _without_limits(spared.port, spared.pid)
        assert f"{UNENDED} of {UNENDED} slow sockets were not ended" in broken.broken()
        assert broken.broken()[-1].startswith("p99 of good clients was ")
        assert broken.during_p99_s > WAITS_LONGER_MAX * broken.before_p99_s + NOTICED_S


async def _attacked(port: int, spared: int) -> tuple[Slowed, list[float]]:
    """What came of it, and what clients of a server beside it waited meanwhile."""
    beside: list[float] = []
    found: list[Slowed] = []
    async with GoodClients(spared, CLIENTS) as calm, anyio.create_task_group() as group:

        async def attack() -> None:
            found.append(await slow(port, sockets=SLOW, clients=CLIENTS, calm_s=CALM_S))

        group.start_soon(attack)
        while not found:
            beside.extend(await calm.ask())
    return found[0], beside


async def _without_limits(port: int, pid: int) -> Slowed:
    """The server stands still for a while once the slow sockets are there."""
    found: list[Slowed] = []
    async with anyio.create_task_group() as group:

        async def attack() -> None:
            watched_s = 3 * STILL_S
            found.append(
                await slow(
                    port, sockets=UNENDED, clients=CLIENTS, calm_s=CALM_S, watched_s=watched_s
                )
            )

        group.start_soon(attack)
        while len(psutil.Process(pid).net_connections("tcp")) < UNENDED + CLIENTS:
            await anyio.sleep(LOOK_S)
        os.kill(pid, signal.SIGSTOP)
        await anyio.sleep(STILL_S)
        os.kill(pid, signal.SIGCONT)
    return found[0]


def test_every_bound_is_judged() -> None:
    kept = Slowed(200, Watched(0.1, 15.0, 0), 1_000, 0.010, 0.020, 0.5)
    assert kept.broken() == ()
    late = Slowed(200, Watched(0.1, 15.1, 0), 1_000, 0.010, 0.020, 0.5)
    assert late.broken() == ("a slow socket was there for 15.1 s, the bound is 15 s",)
    slower = Slowed(200, Watched(0.1, 15.0, 0), 1_000, 0.010, 0.021, 0.5)
    assert slower.broken() == (
        "p99 of good clients was 21.0 ms, more than 2 times the 10.0 ms before",
    )
