"""What both network clients share: each method of `ports.Asker` as one call, and long messages cut into ones that fit."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar, cast

from orchestra.dialects.asks import AppendLog, Backup
from orchestra.dialects.native_calls import BODY_BYTES_MAX, checked_key
from orchestra.errors import Unavailable
from orchestra.ports import Log, LogChunk, LogRead, Moved, Push, Story, Watch
from orchestra.statemachine.commands import Command
from orchestra.statemachine.queries import Query
from orchestra.statemachine.replies import ReportsAnswered
from orchestra.statemachine.reports import AttemptReport, AttemptsReported

R = TypeVar("R")
Piece = TypeVar("Piece")

CONNECT_S = 5.0
"""A machine that is there answers within this, across the world as well."""

ANSWER_S = 60.0
"""Longest wait for an answer: a commit on a busy disk takes seconds, a minute means that something is wrong."""

CHUNKS_BYTES_MAX = BODY_BYTES_MAX * 3 // 4 - 64 * 1024
"""Output in one message: in base64 it grows by a third, and each piece has its names around it."""


def in_batches(pieces: Sequence[Piece], sizes: Sequence[int], most: int) -> Iterator[list[Piece]]:
    """Runs of pieces whose sizes add up to at most ``most``; a piece that is larger goes alone."""
    batch: list[Piece] = []
    size = 0
    for piece, own in zip(pieces, sizes, strict=True):
        if batch and size + own > most:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += own
    if batch:
        yield batch


def _report_size(report: AttemptReport) -> int:
    # Six bytes a character: the longest escape in JSON. 300 for the names and numbers around them.
    return len(report.result or b"") + 6 * len(report.message) + 300


def told(error: BaseException) -> str:
    """What went wrong between two machines, in words: libraries wrap it, sometimes in errors that say nothing."""
    found: BaseException | None = error
    words = ""
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({found.verify_message})"
        words = words or str(found)
        found = found.__cause__ or found.__context__
    return words or type(error).__name__


def unreachable(url: str, told: str) -> Unavailable:
    """Nobody answers there; says what to do about it."""
    return Unavailable(
        f"can not reach {url}: {told}; is the server running (orchestra serve), and is this its address?"
    )


class RemoteAsker(ABC):
    """A `ports.Asker` on the far side of a network; subclasses carry single calls."""

    @abstractmethod
    async def call(self, asked: Any, key: str = "") -> Any:
        """
        Carry one question and its answer.

        Raises:
            Rejected: As the orchestrator raised it.
            Unavailable: The answer is unknown.
        """

    @abstractmethod
    def watch(self, watch: Watch) -> AbstractAsyncContextManager[AsyncIterator[Push]]:
        """As `ports.Asker.watch`. Iterating raises `PeerClosed` when the connection is lost."""

    async def ask(self, command: Command[R], *, key: str = "") -> R:
        """As `ports.Asker.ask`."""
        checked_key(key, where="key")
        if isinstance(command, AttemptsReported):
            return cast("R", await self._report(command, key))
        return cast("R", await self.call(command, key))

    async def _report(self, command: AttemptsReported, key: str) -> ReportsAnswered:
        """Reports in as many messages as they need, oldest first: repeating one changes nothing, so cutting does not either."""
        sizes = [_report_size(report) for report in command.reports]
        if sum(sizes) <= BODY_BYTES_MAX // 2:
            return cast("ReportsAnswered", await self.call(command, key))
        ignored: list[str] = []
        for batch in in_batches(command.reports, sizes, BODY_BYTES_MAX // 2):
            part = AttemptsReported(command.worker_id, command.incarnation, tuple(batch))
            answered: ReportsAnswered = await self.call(part)
            ignored.extend(answered.ignored)
        return ReportsAnswered(tuple(ignored))

    async def answer(self, query: Query[R]) -> R:
        """As `ports.Asker.answer`."""
        return cast("R", await self.call(query))

    async def story(self, query: Story) -> tuple[Moved, ...]:
        """As `ports.Asker.story`."""
        return cast("tuple[Moved, ...]", await self.call(query))

    async def log(self, query: Log) -> LogRead:
        """As `ports.Asker.log`."""
        return cast("LogRead", await self.call(query))

    async def append_log(
        self, worker_id: str, incarnation: int, chunks: Sequence[LogChunk]
    ) -> None:
        """As `ports.Asker.append_log`; in several messages when it is long, of which the first may be kept when a later one fails."""
        sizes = [len(chunk.data) + 200 for chunk in chunks]
        for batch in in_batches(chunks, sizes, CHUNKS_BYTES_MAX):
            await self.call(AppendLog(worker_id, incarnation, tuple(batch)))

    async def backup(self, target: str) -> None:
        """As `ports.Asker.backup`."""
        await self.call(Backup(target))
