"""What may be stored as an attempt's output."""

from __future__ import annotations

from orchestra.errors import Conflict, Malformed, NotFound
from orchestra.ports import LogChunk
from orchestra.statemachine import State, limits
from orchestra.statemachine.records import Attempt


def check_chunk(state: State, worker_id: str, incarnation: int, chunk: LogChunk) -> None:
    """
    Raise unless the piece is this worker's to give, and within its bounds.

    Output of an attempt that is over is kept: it tells what was done.
    """
    attempt = state.find(Attempt, chunk.attempt_id)
    if attempt is None:
        raise NotFound(f"there is no attempt {chunk.attempt_id!r}", where="attempt_id")
    if attempt.worker_id != worker_id or incarnation < attempt.incarnation:
        raise Conflict("the attempt is not this worker's", where="attempt_id")
    if chunk.stream not in ("stdout", "stderr"):
        raise Malformed("a stream is stdout or stderr", where="stream")
    if len(chunk.data) > limits.LOG_CHUNK_BYTES_MAX or chunk.offset < 0:
        raise Malformed(
            f"{len(chunk.data)} bytes at {chunk.offset}",
            where="data",
            remedy=f"send at most {limits.LOG_CHUNK_BYTES_MAX} bytes",
        )
    if chunk.offset + len(chunk.data) > limits.LOG_BYTES_MAX:
        raise Malformed(
            "the stream is full", where="offset", remedy=f"at most {limits.LOG_BYTES_MAX} bytes"
        )
