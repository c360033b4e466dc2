from __future__ import annotations

import pytest

from orchestra.errors import PeerClosed
from orchestra.ports import Lagged, Moved, WatchStory
from orchestra.statemachine.limits import FEED_BUFFER
from orchestra.transports.waiting import Mailbox

pytestmark = pytest.mark.anyio


def moved(number: int) -> Moved:
    return Moved(number, 1, "job", "x", "", "create", "queued", "")


async def test_a_slow_reader_is_told_where_to_read_on() -> None:
    mailbox = Mailbox(WatchStory(after=10))
    for number in range(11, 11 + FEED_BUFFER + 5):
        mailbox.put(moved(number))
    mailbox.end(PeerClosed("later"))
    heard = [push async for push in mailbox]
    assert heard[:-1] == [moved(number) for number in range(11, 11 + FEED_BUFFER)]
    assert heard[-1] == Lagged(10 + FEED_BUFFER)


async def test_what_is_there_comes_before_the_error() -> None:
    mailbox = Mailbox(WatchStory())
    mailbox.put(moved(1))
    mailbox.end(PeerClosed("gone"))
    assert await anext(mailbox) == moved(1)
    with pytest.raises(PeerClosed):
        await anext(mailbox)
