"""
What a watch tells, as JSON and as server-sent events (WHATWG HTML, section 9.2), in both directions.

A push on a channel is an object with one member, named for what it is; as an event that name is the event's type, and the number
of a story entry is the event's id, so that a browser that comes back goes on where it was.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from orchestra.dialects.native_wire import codec_of, malformed
from orchestra.errors import Malformed
from orchestra.ports import Lagged, Moved, OrderSeen, ProgressSeen, Push
from orchestra.statemachine.replies import Order

EVENT_BYTES_MAX = 32 * 1024 * 1024
"""Longest event that a reader collects: an order carries at most one template and one item."""

PING = b": still here\n\n"
"""A comment: readers pass over it, and both ends see that the line is alive."""

_CODECS = {
    "moved": codec_of(Moved, strict=False),
    "order": codec_of(Order, strict=False),
    "progress": codec_of(ProgressSeen, strict=False),
    "lagged": codec_of(Lagged, strict=False),
}


class _Envelope(msgspec.Struct, omit_defaults=True):
    moved: msgspec.Raw = msgspec.Raw(b"")
    order: msgspec.Raw = msgspec.Raw(b"")
    progress: msgspec.Raw = msgspec.Raw(b"")
    lagged: msgspec.Raw = msgspec.Raw(b"")


_envelopes = msgspec.json.Decoder(_Envelope)


def name_of(push: Push) -> str:
    """What a push is called on the wire."""
    match push:
        case Moved():
            return "moved"
        case OrderSeen():
            return "order"
        case ProgressSeen():
            return "progress"
        case Lagged():
            return "lagged"


def encode_push(push: Push) -> bytes:
    """One push as an object with one member."""
    name = name_of(push)
    return b'{"%s":%s}' % (name.encode(), _payload(name, push))


def decode_push(body: bytes) -> Push | None:
    """What `encode_push` wrote; None for a kind that this version does not know. Raises `Malformed`."""
    try:
        envelope = _envelopes.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    for name in _CODECS:
        payload = bytes(getattr(envelope, name))
        if payload:
            return read_payload(name, payload)
    return None


def read_payload(name: str, payload: bytes) -> Push | None:
    """One push by its name and content; None for a name that this version does not know. Raises `Malformed`."""
    codec = _CODECS.get(name)
    if codec is None:
        return None
    found: Any = codec.decode(payload)
    return OrderSeen(found) if name == "order" else found


def encode_event(push: Push) -> bytes:
    """One push as a server-sent event."""
    name = name_of(push)
    # Options may hold line ends between their tokens; each line of an event's content has its own field.
    payload = _payload(name, push).replace(b"\r", b" ").replace(b"\n", b"\ndata: ")
    number = b"id: %d\n" % push.number if isinstance(push, Moved) else b""
    return b"%sevent: %s\ndata: %s\n\n" % (number, name.encode(), payload)


def _payload(name: str, push: Push) -> bytes:
    return _CODECS[name].encode(push.order if isinstance(push, OrderSeen) else push)


@attrs.define(slots=True)
class EventReader:
    """Server-sent events out of a stream of bytes, cut anywhere. Lines end with LF or CR LF."""

    _rest: bytes = b""
    _name: str = ""
    _lines: list[bytes] = attrs.field(factory=list[bytes])
    _size: int = 0

    def feed(self, received: bytes) -> list[Push]:
        """
        The pushes that are complete with these bytes.

        Raises:
            Malformed: An event that can not be read, or one longer than `EVENT_BYTES_MAX`.
        """
        self._size += len(received)
        *lines, self._rest = (self._rest + received).split(b"\n")
        found: list[Push] = []
        for line in lines:
            push = self._take(line.removesuffix(b"\r"))
            if push is not None:
                found.append(push)
        if self._size > EVENT_BYTES_MAX:
            raise Malformed("an event is longer than any that orchestra sends", where="event")
        return found

    def _take(self, line: bytes) -> Push | None:
        if line:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value.decode("utf-8", "replace")
            elif field == b"data":
                self._lines.append(value)
            return None
        name, lines = self._name, self._lines
        self._name, self._lines, self._size = "", [], len(self._rest)
        return read_payload(name, b"\n".join(lines)) if lines else None
