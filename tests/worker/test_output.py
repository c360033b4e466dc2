"""Output that waits to be stored: nothing lost, nothing doubled, nothing out of place, and bounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.ports import LogChunk
from orchestra.statemachine import limits
from orchestra.worker.output import ATTEMPT_BYTES_MAX, BATCH_BYTES_MAX, OutputSpool


def put(kept: dict[tuple[str, str], bytearray], chunks: tuple[LogChunk, ...]) -> None:
    """Store as an orchestrator does: each piece at its place."""
    for chunk in chunks:
        stream = kept.setdefault((chunk.attempt_id, chunk.stream), bytearray())
        assert chunk.offset <= len(stream), "no gap"
        stream[chunk.offset : chunk.offset + len(chunk.data)] = chunk.data


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("add"),
            st.sampled_from(["a", "b"]),
            st.sampled_from(["stdout", "stderr"]),
            st.binary(min_size=1, max_size=40),
        ),
        st.tuples(st.just("send"), st.sampled_from(["stored", "answer lost", "never arrived"])),
    ),
    max_size=40,
)


@given(STEPS)
def test_whatever_is_lost_on_the_way_the_streams_come_out_whole(
    steps: list[tuple[str, ...]],
) -> None:
    spool = OutputSpool()
    written: dict[tuple[str, str], bytes] = {}
    kept: dict[tuple[str, str], bytearray] = {}
    for step in steps:
        if step[0] == "add":
            _, attempt_id, stream, data = step
            assert isinstance(data, bytes)
            spool.add(attempt_id, stream, data)
            written[attempt_id, stream] = written.get((attempt_id, stream), b"") + data
            continue
        chunks = spool.batch()
        if step[1] != "never arrived":
            put(kept, chunks)
        if step[1] == "stored":
            spool.stored(chunks)
        else:
            spool.unstored(chunks)
    waiting = {attempt_id for attempt_id in ("a", "b") if not spool.close(attempt_id)}
    while chunks := spool.batch():
        put(kept, chunks)
        waiting -= set(spool.stored(chunks))
    assert not waiting
    assert spool.unsent_bytes == 0
    assert {place: bytes(data) for place, data in kept.items()} == written


def test_pieces_are_joined_cut_to_size_and_taken_in_turn() -> None:
    spool = OutputSpool()
    for _ in range(1_000):
        spool.add("a", "stdout", b"x" * 700)
    spool.add("b", "stdout", b"y")
    chunks = spool.batch()
    assert [len(each.data) for each in chunks] == [
        limits.LOG_CHUNK_BYTES_MAX,
        1,
        limits.LOG_CHUNK_BYTES_MAX - 1,
    ]
    assert sum(len(each.data) for each in chunks) == BATCH_BYTES_MAX


def test_a_stream_beyond_its_limit_is_dropped_and_says_so_once() -> None:
    spool = OutputSpool()
    kept: dict[tuple[str, str], bytearray] = {}
    for _ in range(17):
        spool.add("a", "stdout", b"x" * 1024 * 1024)
    assert not spool.close("a")
    while chunks := spool.batch():
        put(kept, chunks)
        spool.stored(chunks)
    stream = bytes(kept["a", "stdout"])
    assert len(stream) <= limits.LOG_BYTES_MAX
    assert stream.count(b"longer than is kept") == 1
    dropped = 17 * 1024 * 1024 - stream.count(b"x")
    assert stream.endswith(f"[orchestra: {dropped:,} bytes were dropped]\n".encode())


def test_a_flood_holds_up_its_own_attempt_only() -> None:
    spool = OutputSpool()
    spool.add("a", "stdout", b"x" * ATTEMPT_BYTES_MAX)
    assert spool.is_full("a")
    assert not spool.is_full("b")
    while chunks := spool.batch():
        spool.stored(chunks)
    assert not spool.is_full("a")


def test_bytes_on_their_way_count_as_unsent() -> None:
    spool = OutputSpool()
    spool.add("a", "stdout", b"x" * ATTEMPT_BYTES_MAX)
    spool.batch()
    assert spool.is_full("a")


@pytest.mark.parametrize("closed", [False, True])
def test_what_nobody_takes_is_discarded_and_lets_the_end_go(closed: bool) -> None:
    spool = OutputSpool()
    spool.add("a", "stdout", b"x")
    spool.add("b", "stdout", b"y")
    chunks = spool.batch("a")
    assert [each.attempt_id for each in chunks] == ["a"]
    if closed:
        spool.close("a")
    assert spool.discard("a") is closed
    spool.unstored(chunks)
    assert [each.attempt_id for each in spool.batch()] == ["b"]
    assert spool.unsent_bytes == 1
