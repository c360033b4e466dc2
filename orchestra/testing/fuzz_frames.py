"""
Websocket frames (RFC 6455, section 5) as they should be and as they should not: a corpus, and mutations that know how a frame is built.

An input is one byte that says how it is delivered (`fuzz_sockets`), and the bytes of frames. The masking key is zero, so that what a
frame carries stands there as it is, and can be changed by mutations that know nothing of frames.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence

import attrs

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
OPCODES = (CONTINUED, TEXT, BINARY, CLOSE, PING, PONG)
FINAL, RESERVED, MASKED = 0x80, 0x70, 0x80
SHORT_BYTES_MAX, MIDDLE_BYTES_MAX = 125, 65_535
KEY = bytes(4)
FRAMES_MAX = 400
"""An input has no more of them: floods of what is small are meant, not of bytes."""

BAD_TEXTS = (b"\xff\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"a\xe2\x82", b"\x00")
CLOSE_CODES = (0, 999, 1_000, 1_001, 1_004, 1_005, 1_006, 1_011, 1_015, 1_016, 2_999, 3_000, 4_999, 5_000, 65_535)  # fmt: skip
LENGTHS = (0, 1, 125, 126, 127, 65_535, 65_536, 1_052_672, 1_052_673, 2**31, 2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip


@attrs.frozen(slots=True)
class Frame:
    """
    One frame.

    Args:
        first: The byte of FIN, the reserved bits and the opcode.
        payload: What it carries.
        masked: Whether it is, with the key zero.
        length: The length that it claims, when that is not the true one.
        wide: How many bytes the length takes (0, 2 or 8), when that is not what it should be.
    """

    first: int
    payload: bytes = b""
    masked: bool = True
    length: int | None = None
    wide: int | None = None

    def encode(self) -> bytes:
        """The bytes."""
        length = len(self.payload) if self.length is None else self.length
        wide = self.wide
        if wide is None:
            wide = 0 if length <= SHORT_BYTES_MAX else 2 if length <= MIDDLE_BYTES_MAX else 8
        mask = MASKED if self.masked else 0
        if wide == 0:
            told = bytes([mask | min(length, SHORT_BYTES_MAX)])
        elif wide == 2:  # noqa: PLR2004 - a length of 16 bits
            told = bytes([mask | 126]) + struct.pack(">H", length & 0xFFFF)
        else:
            told = bytes([mask | 127]) + struct.pack(">Q", length & (2**64 - 1))
        return bytes([self.first]) + told + (KEY if self.masked else b"") + self.payload


def text(payload: bytes) -> Frame:
    """A whole message of text."""
    return Frame(FINAL | TEXT, payload)


def in_pieces(payload: bytes, size: int, opcode: int = TEXT) -> list[Frame]:
    """A message in fragments of ``size`` bytes."""
    cut = [payload[at : at + size] for at in range(0, len(payload), size)] or [b""]
    return [
        Frame((CONTINUED if at else opcode) | (FINAL if at == len(cut) - 1 else 0), piece)
        for at, piece in enumerate(cut)
    ]


def joined(way: int, frames: Sequence[Frame]) -> bytes:
    """An input: how it is delivered, and frames."""
    return bytes([way]) + b"".join(frame.encode() for frame in frames)


def split(raw: bytes) -> list[Frame]:
    """The frames of an input, as far as they can be told apart; what is left over is the last one's."""
    frames: list[Frame] = []
    at = 1
    while at + 2 <= len(raw) and len(frames) < FRAMES_MAX:
        first, second = raw[at], raw[at + 1]
        at += 2
        length = second & 0x7F
        wide = 0
        if length > SHORT_BYTES_MAX:
            wide = 2 if length == SHORT_BYTES_MAX + 1 else 8
            length = int.from_bytes(raw[at : at + wide], "big")
            at += wide
        if second & MASKED:
            at += 4
        payload = raw[at : at + length]
        at += len(payload)
        told = length if length != len(payload) else None
        frames.append(Frame(first, payload, bool(second & MASKED), told))
    return frames


def _one(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """One frame is not as it should be."""
    frames = split(raw) or split(rng.choice(corpus))
    at = rng.randrange(len(frames))
    frame = frames[at]
    match rng.randrange(8):
        case 0:
            frame = attrs.evolve(frame, first=frame.first ^ (1 << rng.choice((4, 5, 6))))
        case 1:
            frame = attrs.evolve(frame, first=frame.first ^ FINAL)
        case 2:
            opcode = rng.choice(OPCODES) if rng.getrandbits(1) else rng.randrange(16)
            frame = attrs.evolve(frame, first=(frame.first & 0xF0) | opcode)
        case 3:
            frame = attrs.evolve(frame, masked=not frame.masked)
        case 4:
            frame = attrs.evolve(frame, length=rng.choice(LENGTHS))
        case 5:
            frame = attrs.evolve(frame, wide=rng.choice((0, 2, 8)))
        case 6:
            where = rng.randint(0, len(frame.payload))
            bad = frame.payload[:where] + rng.choice(BAD_TEXTS) + frame.payload[where:]
            frame = attrs.evolve(frame, payload=bad)
        case _:
            frame = attrs.evolve(frame, payload=frame.payload * rng.choice((0, 2, 30)))
    frames[at] = frame
    return joined(raw[0] if raw else 0, frames)


def _order(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Frames are gone, come again and again, change places, or come from another input."""
    frames = split(raw) or split(rng.choice(corpus))
    at = rng.randrange(len(frames))
    match rng.randrange(4):
        case 0:
            del frames[at]
        case 1:
            frames[at:at] = [frames[at]] * rng.choice((1, 2, 12, 200))
        case 2:
            frames[at], frames[0] = frames[0], frames[at]
        case _:
            frames[at:at] = split(rng.choice(corpus))
    return joined(raw[0] if raw else 0, frames[:FRAMES_MAX])


def _control(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """A control frame in between: alone or in a flood, with too long or too odd a content, or without its end."""
    frames = split(raw) or split(rng.choice(corpus))
    at = rng.randint(0, len(frames))
    match rng.randrange(5):
        case 0:
            code = struct.pack(">H", rng.choice(CLOSE_CODES))
            frame = Frame(FINAL | CLOSE, code + rng.choice((b"", b"why", *BAD_TEXTS)))
        case 1:
            frame = Frame(FINAL | CLOSE, rng.choice((b"", b"\x03", bytes(126))))
        case 2:
            size = rng.choice((0, 1, 125, 126, 300))
            frame = Frame(FINAL | rng.choice((PING, PONG)), bytes(size))
        case 3:
            frame = Frame(rng.choice((PING, PONG, CLOSE)), b"x")
        case _:
            frame = Frame(FINAL | PING, b"x")
            frames[at:at] = [frame] * rng.choice((1, 9, 40))
    frames.insert(at, frame)
    return joined(raw[0] if raw else 0, frames[:FRAMES_MAX])


def _fragments(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """A message in fragments: tiny, empty, too many, without an end, or begun anew in the middle."""
    frames = split(raw) or split(rng.choice(corpus))
    at = rng.randrange(len(frames))
    payload = frames[at].payload or b"{}"
    size = rng.choice((1, 2, 63, 64, 65, len(payload) // 2 + 1))
    pieces = in_pieces(payload, size, rng.choice((TEXT, TEXT, BINARY)))
    match rng.randrange(5):
        case 0:
            pieces = pieces[:-1] or pieces
        case 1:
            pieces[1:1] = [Frame(CONTINUED)] * rng.choice((1, 70))
        case 2:
            pieces[1:1] = [text(payload)]
        case 3:
            pieces[1:1] = [Frame(FINAL | PING, b"between")]
        case _:
            pass
    frames[at : at + 1] = pieces
    return joined(raw[0] if raw else 0, frames[:FRAMES_MAX])


def _delivery(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    """The same bytes, delivered in another way."""
    return bytes([rng.randrange(256)]) + raw[1:]


MUTATIONS = (_one, _one, _order, _control, _fragments, _delivery)


def corpus_of(messages: Sequence[bytes]) -> list[bytes]:
    """Valid inputs that carry these messages in each way that the protocol has, delivered in each way."""
    found: list[bytes] = []
    for number, message in enumerate(messages):
        half, listening = len(message) // 2 + 1, number % 4 + 8
        found += [
            joined(number % 8, [text(message)]),
            joined(listening, in_pieces(message, max(64, half))),
            joined(number % 4, [Frame(FINAL | PING, b"there?"), text(message), text(message)]),
            joined(
                listening,
                [*in_pieces(message, half)[:1], Frame(FINAL | PONG), *in_pieces(message, half)[1:]],
            ),
            joined(listening, [text(message), Frame(FINAL | CLOSE, b"\x03\xe8bye")]),
        ]
    found.append(joined(8, [Frame(FINAL | BINARY, bytes(300)), Frame(FINAL | CLOSE)]))
    found.append(joined(9, [Frame(FINAL | TEXT, b"x" * 60_000, wide=8)]))
    return found
