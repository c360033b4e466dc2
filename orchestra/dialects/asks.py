"""
What a dialect's ``decode`` may answer: everything that can be put to a `ports.Asker`, as one value each.

A command may come bare or `Keyed`; queries, `ports.Story`, `ports.Log` and the watches come as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from orchestra.ports import Log, LogChunk, Story, WatchOrders, WatchStory
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query
from orchestra.statemachine.values import value


@value
class Keyed:
    """A command with the caller's idempotency key; empty without one."""

    command: Command[Any]
    key: str


@value
class AppendLog:
    """The arguments of `ports.Asker.append_log`."""

    worker_id: str
    incarnation: int
    chunks: tuple[LogChunk, ...]


@value
class Backup:
    """The argument of `ports.Asker.backup`."""

    target: str


@value
class Known:
    """Nobody has to be asked: the dialect has the answer itself."""

    answer: object


@value
class Apart:
    """Something slow of the dialect's surroundings, such as reading a file: it is called in a thread, and what it returns is the answer."""

    call: Callable[[], object]


@value
class Dialogue:
    """
    Several things to ask, one after the other, for a wire whose one request is more than one of the core's.

    Args:
        begin: A generator that yields what to ask next, is sent the answer (or thrown the `OrchestraError`), and returns the whole's
            answer. It does nothing but that, and ends after at most `DIALOGUE_MAX` asks.
    """

    begin: Callable[[], Generator[Ask, Any, object]]


DIALOGUE_MAX = 2_000
"""Asks of one request: a longer one is a loop."""

Ask = (
    Command[Any] | Query[Any] | Keyed | Story | Log | AppendLog | Backup | Known | Apart | Dialogue
)
Watching = WatchOrders | WatchStory
