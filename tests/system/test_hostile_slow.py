"""Slow sockets against a real server under its usual limits: they are gone in time, and good clients never notice."""

from __future__ import annotations

import pytest

from orchestra.testing.hostile.campaign import ROOM, serving
from orchestra.testing.hostile.slow import GONE_S, slow

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow]

SLOW = 200
"""2,000 are tried by ``python -m orchestra prove sockets --slow 2000 --clients 100``."""

LATENCIES = 100
"""So many of the slowest answers to good clients are added: on a machine that is busy with other things both take longer."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


async def test_200_slow_sockets_are_gone_in_time_and_good_clients_go_on() -> None:
    async with serving(ROOM) as server:
        slowed = await slow(server.port, sockets=SLOW, clients=2)
        assert server.pid  # it lives
    assert slowed.good > 2
    assert slowed.gone_s <= GONE_S + LATENCIES * slowed.during_worst_s
    assert slowed.gone_s > 2, (
        "nobody waited for the limits, so they were not what ended the sockets"
    )
