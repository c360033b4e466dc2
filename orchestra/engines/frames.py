"""
Frames between an engine and the processes that it starts: four bytes of length (big endian), then that many bytes.

Only the smallest part of the standard library is imported, because the guardian starts with it in a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator

FRAME_BYTES_MAX = 16 * 1024 * 1024
"""A start with its whole environment, or a result, fits many times; a longer frame is noise on the line."""

_HEAD = 4


def packed(payload: bytes) -> bytes:
    """``payload`` as one frame. Raises ValueError when it is too long."""
    if len(payload) > FRAME_BYTES_MAX:
        raise ValueError(f"a frame holds at most {FRAME_BYTES_MAX} bytes")
    return len(payload).to_bytes(_HEAD, "big") + payload


class Unpacker:
    """Cuts a stream of bytes into the payloads of its frames."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The payloads that ``data`` completes, in order. Raises ValueError for an impossible length."""
        self._held += data
        while len(self._held) >= _HEAD:
            size = int.from_bytes(self._held[:_HEAD], "big")
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"a frame of {size} bytes was announced")
            if len(self._held) < _HEAD + size:
                return
            payload = bytes(self._held[_HEAD : _HEAD + size])
            del self._held[: _HEAD + size]
            yield payload
