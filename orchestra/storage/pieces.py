"""
Output of attempts as pieces at offsets: the byte that was stored first stays.

A worker that repeats a piece after a lost answer may cut it differently, so only what is not stored yet is added. A piece beyond the end
leaves a hole, which reads as zero bytes like a hole in a file: a reader that follows is never stuck before it.
"""

from __future__ import annotations

from collections.abc import Iterable


def uncovered(
    offset: int, chunk: bytes, stored: Iterable[tuple[int, int]]
) -> list[tuple[int, bytes]]:
    """
    What of ``chunk`` at ``offset`` is new.

    Args:
        offset: Where ``chunk`` begins in the stream.
        chunk: The bytes.
        stored: (begin, end) of stored pieces, in order, without overlap; those that do not touch ``chunk`` change nothing.

    Returns:
        Pieces (offset, bytes) that fill the holes between the stored ones, in order.
    """
    end = offset + len(chunk)
    fresh: list[tuple[int, bytes]] = []
    place = offset
    for begin, stop in stored:
        if begin >= end:
            break
        if begin > place:
            fresh.append((place, chunk[place - offset : begin - offset]))
        place = max(place, stop)
    if place < end:
        fresh.append((place, chunk[place - offset :]))
    return fresh


def assemble(offset: int, limit: int, size: int, pieces: Iterable[tuple[int, bytes]]) -> bytes:
    """
    The bytes of a stream from ``offset`` on, at most ``limit``, not beyond ``size``.

    ``pieces`` are those stored in that range, in order. Holes are zero bytes.
    """
    end = min(offset + limit, size)
    if end <= offset:
        return b""
    out = bytearray(end - offset)
    for begin, chunk in pieces:
        low = max(begin, offset)
        high = min(begin + len(chunk), end)
        if low < high:
            out[low - offset : high - offset] = chunk[low - begin : high - begin]
    return bytes(out)
