"""
Output that attempts have written and the orchestrator has not stored yet. No I/O.

A piece has its place (attempt, stream, offset), so sending it twice changes nothing. One batch is on its way at a time:
`OutputSpool.batch`, then `stored` or `unstored`.
"""

from __future__ import annotations

from collections import deque

import attrs

from orchestra.ports import LogChunk
from orchestra.statemachine import limits

BATCH_BYTES_MAX = 2 * limits.LOG_CHUNK_BYTES_MAX
"""Output in one message: in base 64 it stays well below the 1 MiB that a body may have."""

ATTEMPT_BYTES_MAX = 1024 * 1024
"""Unsent output of one attempt beyond which it has to wait, so that one that floods does not hold up the others."""

TOTAL_BYTES_MAX = 64 * 1024 * 1024
"""Unsent output of all attempts beyond which every one has to wait: what a worker may cost in memory while the server is away."""

_NOTES_BYTES = 256
"""Room for both notes about output that is not kept."""


@attrs.define(slots=True, eq=False)
class _Stream:
    pieces: deque[bytes] = attrs.field(factory=deque[bytes])
    size: int = 0
    """Bytes in ``pieces``."""
    offset: int = 0
    """Where the first of ``pieces`` belongs."""
    kept: int = 0
    """Bytes accepted so far, sent ones included."""
    dropped: int = 0
    queued: bool = False

    def add(self, data: bytes) -> None:
        self.pieces.append(data)
        self.size += len(data)
        self.kept += len(data)

    def cut(self, size_max: int) -> bytes:
        """Take up to ``size_max`` bytes from the front."""
        taken: list[bytes] = []
        room = size_max
        while self.pieces and room:
            piece = self.pieces.popleft()
            if len(piece) > room:
                self.pieces.appendleft(piece[room:])
                piece = piece[:room]
            taken.append(piece)
            room -= len(piece)
        data = b"".join(taken)
        self.size -= len(data)
        self.offset += len(data)
        return data


@attrs.define(slots=True, eq=False)
class _Output:
    streams: dict[str, _Stream] = attrs.field(factory=dict[str, _Stream])
    unsent: int = 0
    """Bytes that are not known to be stored, those on their way included."""
    closed: bool = False


class OutputSpool:
    """Unsent output of every attempt of a worker."""

    def __init__(self) -> None:
        self._outputs: dict[str, _Output] = {}
        self._queue: deque[tuple[str, str]] = deque()
        self._unsent = 0

    @property
    def unsent_bytes(self) -> int:
        """Bytes that are not known to be stored."""
        return self._unsent

    def is_full(self, attempt_id: str) -> bool:
        """Whether the attempt has to wait before it adds more."""
        output = self._outputs.get(attempt_id)
        own = output.unsent if output is not None else 0
        return own >= ATTEMPT_BYTES_MAX or self._unsent >= TOTAL_BYTES_MAX

    def add(self, attempt_id: str, stream_name: str, data: bytes) -> None:
        """More output. Beyond ``limits.LOG_BYTES_MAX`` of a stream it is counted and dropped, and the log says so."""
        output = self._outputs.setdefault(attempt_id, _Output())
        stream = output.streams.setdefault(stream_name, _Stream())
        before = stream.kept
        room = limits.LOG_BYTES_MAX - _NOTES_BYTES - stream.kept
        if stream.dropped:
            stream.dropped += len(data)
        elif len(data) <= room:
            stream.add(data)
        else:
            if room > 0:
                stream.add(data[:room])
            stream.dropped = len(data) - max(0, room)
            stream.add(
                b"\n[orchestra: this stream is longer than is kept; what follows is dropped]\n"
            )
        self._grown(attempt_id, output, stream_name, stream, stream.kept - before)

    def _grown(
        self, attempt_id: str, output: _Output, stream_name: str, stream: _Stream, size: int
    ) -> None:
        output.unsent += size
        self._unsent += size
        if size and not stream.queued:
            stream.queued = True
            self._queue.append((attempt_id, stream_name))

    def close(self, attempt_id: str) -> bool:
        """The attempt has ended: no more output comes. True when everything is stored already."""
        output = self._outputs.get(attempt_id)
        if output is None:
            return True
        output.closed = True
        for stream_name, stream in output.streams.items():
            if stream.dropped:
                note = f"[orchestra: {stream.dropped:,} bytes were dropped]\n".encode()
                stream.add(note)
                self._grown(attempt_id, output, stream_name, stream, len(note))
        if output.unsent:
            return False
        del self._outputs[attempt_id]
        return True

    def batch(self, attempt_id: str = "") -> tuple[LogChunk, ...]:
        """What to send now, in turn from every stream (or only from one attempt's); empty when there is nothing."""
        chunks: list[LogChunk] = []
        room = BATCH_BYTES_MAX
        later: list[tuple[str, str]] = []
        while self._queue and room:
            place = self._queue.popleft()
            output = self._outputs.get(place[0])
            if output is None:
                continue
            if attempt_id and place[0] != attempt_id:
                later.append(place)
                continue
            stream = output.streams[place[1]]
            offset = stream.offset
            data = stream.cut(min(room, limits.LOG_CHUNK_BYTES_MAX))
            room -= len(data)
            chunks.append(LogChunk(place[0], place[1], offset, data))
            stream.queued = stream.size > 0
            if stream.queued:
                self._queue.append(place)
        self._queue.extendleft(reversed(later))
        return tuple(chunks)

    def stored(self, chunks: tuple[LogChunk, ...]) -> tuple[str, ...]:
        """The orchestrator stored them. Attempts that have ended and whose output is all stored now."""
        complete: list[str] = []
        for chunk in chunks:
            output = self._outputs.get(chunk.attempt_id)
            if output is None:
                continue
            output.unsent -= len(chunk.data)
            self._unsent -= len(chunk.data)
            if output.closed and not output.unsent:
                del self._outputs[chunk.attempt_id]
                complete.append(chunk.attempt_id)
        return tuple(complete)

    def unstored(self, chunks: tuple[LogChunk, ...]) -> None:
        """It is unknown whether they arrived: they are sent again, from the same offsets."""
        for chunk in reversed(chunks):
            output = self._outputs.get(chunk.attempt_id)
            if output is None:
                continue
            stream = output.streams[chunk.stream]
            stream.pieces.appendleft(chunk.data)
            stream.size += len(chunk.data)
            stream.offset = chunk.offset
            if not stream.queued:
                stream.queued = True
                self._queue.appendleft((chunk.attempt_id, chunk.stream))

    def discard(self, attempt_id: str) -> bool:
        """Nobody takes an attempt's output any more. True when it has ended and only waited for this."""
        output = self._outputs.get(attempt_id)
        if output is None:
            return False
        self._unsent -= output.unsent
        del self._outputs[attempt_id]
        return output.closed
