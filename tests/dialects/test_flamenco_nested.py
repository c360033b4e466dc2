"""JSON from far ends of Flamenco that is nested deeper than Python's own stack: it says nothing, and ends nothing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.flamenco_listing import read_vitals
from orchestra.dialects.flamenco_parsers import Activity, read_activity
from orchestra.dialects.flamenco_worker_offers import read_offer
from orchestra.errors import Unavailable
from tests.dialects.flamenco_kit import open_yard
from tests.dialects.flamenco_worker_kit import TASK, machine

pytestmark = pytest.mark.anyio

DEEP = '{"more": ' + "[" * 3_000 + "]" * 3_000 + "}"
DEEP_REPLY = FarReply(200, DEEP.encode())


def test_what_is_too_deep_says_nothing() -> None:
    before = Activity(current_frame=5)
    assert read_activity(DEEP, before) == before
    assert read_vitals(DEEP_REPLY) == {}
    with pytest.raises(Unavailable, match="no task"):
        read_offer(DEEP_REPLY)


async def test_a_worker_goes_on_when_the_settings_of_its_manager_are_too_deep() -> None:
    async with machine() as ours:
        ours.manager.offered = TASK
        ours.manager.answer = lambda call: (
            DEEP_REPLY if call.path.startswith("/settings") else FarReply(204, b"")
        )
        await ours.passes()
        assert len(await ours.orders()) == 1


async def test_a_manager_goes_on_when_what_its_worker_says_is_too_deep() -> None:
    asked: list[str] = []

    def answer(calls: Sequence[FarCall]) -> tuple[FarReply | None, ...]:
        asked.extend(call.path for call in calls)
        return (DEEP_REPLY,) * len(calls)

    async with open_yard(answer, workers={"render-*": {"push": True}}) as yard:
        assert await yard.at("10.0.0.7", "render-1", 15_000).register() == 204
        await yard.passes(30)
        assert asked.count("/info") > 1
