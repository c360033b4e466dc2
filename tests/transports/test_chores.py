"""A dialect's chores are done again and again, by the orchestrator that it stands before, until the stop."""

from __future__ import annotations

import threading
from collections.abc import Generator
from typing import Any

import anyio
import pytest

from orchestra.compose import open_orchestrator
from orchestra.dialects.asks import Apart, Ask, Dialogue, Known
from orchestra.dialects.wire import Chore
from orchestra.errors import Unavailable
from orchestra.statemachine.queries import GetOverview
from orchestra.transports.asking import put
from orchestra.transports.chores import repeat

pytestmark = pytest.mark.anyio


async def test_rounds_follow_each_other_until_the_stop_though_one_is_refused() -> None:
    stop = anyio.Event()
    rounds: list[object] = []

    def look() -> Generator[Ask, Any, object]:
        rounds.append((yield GetOverview()))
        if len(rounds) == 1:
            raise Unavailable("the first one fails")
        if len(rounds) == 3:
            stop.set()
        return None

    async with open_orchestrator(None) as orchestrator:
        chore = Chore(lambda: Dialogue(look), every_ms=1)
        with anyio.fail_after(60):
            await repeat(orchestrator.for_principal("chores"), "sample", chore, stop)
    assert len(rounds) == 3


async def test_after_the_stop_no_round_begins() -> None:
    stop = anyio.Event()
    stop.set()
    begun: list[int] = []

    def begin() -> Ask:
        begun.append(1)
        return Known(None)

    async with open_orchestrator(None) as orchestrator:
        await repeat(orchestrator.for_principal("chores"), "sample", Chore(begin, 1), stop)
    assert begun == []


async def test_what_is_slow_is_done_in_a_thread() -> None:
    async with open_orchestrator(None) as orchestrator:
        asker = orchestrator.for_principal("chores")
        here = threading.get_ident()
        assert await put(asker, Apart(threading.get_ident)) != here
        assert await put(asker, Known(here)) == here
