"""What waits for its turn with the orchestrator."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.ports import LogChunk
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query
from orchestra.statemachine.records import Record
from orchestra.waiting import Waiter


class Ask:
    """
    A command, a query that came while a commit ran, or output to be stored with the next batch.

    Args:
        done: Rung when ``reply`` is there and durable.
        recalled: Rows of a job that left memory, brought back before the command is applied.
    """

    __slots__ = ("command", "done", "key", "logs", "principal", "query", "recalled", "reply")

    def __init__(
        self,
        done: Waiter,
        command: Command[object] | None = None,
        *,
        principal: str = "",
        key: str = "",
        query: Query[object] | None = None,
        logs: tuple[LogChunk, ...] = (),
        recalled: Sequence[Record] = (),
    ) -> None:
        self.command = command
        self.principal = principal
        self.key = key
        self.query = query
        self.logs = logs
        self.recalled = recalled
        self.reply: object = None
        self.done = done
