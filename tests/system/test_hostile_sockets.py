"""Hostile bytes, frames and floods against a real server; and each oracle sees what it is for."""

from __future__ import annotations

import attrs
import pytest

from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.hostile import corpus, flood, frames
from orchestra.testing.hostile.campaign import ROOM, serving, working

pytestmark = [pytest.mark.anyio, pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

FLOOD = 400
"""A campaign asks a hundred times as often: ``python -m orchestra prove sockets --flood 50000``."""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The server needs asyncio."""
    return "asyncio"


def test_no_case_is_planned_to_be_a_failure_of_the_server() -> None:
    names = [case.name for case in corpus.CORPUS]
    assert len(names) == len(set(names)) >= 23
    for case in corpus.CORPUS:
        assert case.statuses, case.name
        # 501 and 505 tell of codings and versions that are not spoken here.
        assert set(case.statuses) <= {200, 201, 400, 403, 404, 405, 413, 415, 431, 501, 505}


async def test_bytes_and_frames_get_their_one_answer_and_memory_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(ROOM) as server:
        await corpus.play(server.port)
        for tried in frames.ATTACKS:
            await frames.attack(server.port, server.pid, tried)
        await corpus.play(server.port, corpus.CORPUS[-1:])
        # The controls: another answer, one answer too many, another code, and memory beyond a bound.
        smuggled = corpus.CORPUS[0]
        wrong = attrs.evolve(corpus.CORPUS[-1], statuses=(200, 200))
        for case in (attrs.evolve(smuggled, keeps=True), wrong):
            with pytest.raises(FuzzBroken, match="planned is"):
                await corpus.play(server.port, [case])
        reserved = next(each for each in frames.ATTACKS if each.name == "a reserved bit")
        odd = attrs.evolve(reserved, codes=frozenset({1_000}))
        with pytest.raises(FuzzBroken, match="planned is"):
            await frames.attack(server.port, server.pid, odd)
        monkeypatch.setattr(frames, "GROWTH_BYTES_MAX", -1)
        with pytest.raises(FuzzBroken, match="grew by"):
            await frames.attack(server.port, server.pid, reserved)


async def test_of_a_flood_what_is_accepted_is_done_and_the_rest_is_told_when_to_come_again() -> (
    None
):
    async with serving(flood.LIMITS) as server, working(server):
        found = await flood.flood(server.port, server.pid, clients=8, requests=FLOOD)
        assert server.pid  # it lives
    assert found.asked >= FLOOD
    assert found.broken() == ()
    assert found.ratio >= flood.RATIO
    # The controls: less than a flood, and one in which nothing was to be done.
    assert "that was no flood" in attrs.evolve(found, taken=found.asked).broken()[0]
    assert "no job was accepted" in attrs.evolve(found, jobs=0).broken()[0]
