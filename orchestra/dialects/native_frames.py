"""The client's side of the native channel: what it says, and what it hears. See `native_session` for the words."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestra.dialects.native_problems import Problem, error_of
from orchestra.dialects.native_pushes import decode_push
from orchestra.dialects.native_table import BY_CLASS, WATCH_BY_CLASS
from orchestra.dialects.native_wire import malformed
from orchestra.errors import OrchestraError
from orchestra.ports import Push, Watch
from orchestra.statemachine.values import value

_text = msgspec.json.Encoder().encode


@value
class Replied:
    """The answer to question ``tag``, still as JSON: `reply_to` reads it."""

    tag: int
    reply: bytes


@value
class Refused:
    """Question or watch ``tag`` is refused; None when the server could not read which."""

    tag: int | None
    error: OrchestraError


@value
class Watching:
    """Watch ``tag`` stands."""

    tag: int


@value
class Pushed:
    """Watch ``tag`` tells something; ``push`` is None for a kind that this version does not know."""

    tag: int
    push: Push | None


@value
class Ended:
    """Watch ``tag`` is over."""

    tag: int


Heard = Replied | Refused | Watching | Pushed | Ended


class _Frame(msgspec.Struct):
    id: int | None = None
    reply: msgspec.Raw = msgspec.Raw(b"")
    problem: Problem | None = None
    watching: bool = False
    push: msgspec.Raw = msgspec.Raw(b"")
    ended: bool = False


_frames = msgspec.json.Decoder(_Frame)


def ask_frame(tag: int, asked: Any, key: str) -> bytes:
    """Question ``tag``: any command, query, or other class of the native table."""
    operation = BY_CLASS[type(asked)]
    body = operation.input.codec.encode(asked)
    keyed = b',"key":' + _text(key) if key else b""
    return b'{"id":%d,"ask":"%s","body":%s%s}' % (tag, operation.name.encode(), body, keyed)


def reply_to(asked: type[Any], reply: bytes) -> Any:
    """The answer to a question of this class. Raises `Malformed`."""
    return BY_CLASS[asked].output.decode(reply)


def watch_frame(tag: int, watch: Watch) -> bytes:
    """Open watch ``tag``."""
    watchable = WATCH_BY_CLASS[type(watch)]
    body = watchable.input.codec.encode(watch)
    return b'{"id":%d,"watch":{"%s":%s}}' % (tag, watchable.word.encode(), body)


def unwatch_frame(tag: int) -> bytes:
    """Close watch ``tag``."""
    return b'{"id":%d,"unwatch":true}' % tag


def hear(frame: str | bytes) -> Heard | None:
    """What the server said; None for words that this version does not know. Raises `Malformed`."""
    try:
        said = _frames.decode(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    if said.problem is not None:
        return Refused(said.id, error_of(said.problem))
    if said.id is None:
        return None
    push = bytes(said.push)
    if push:
        return Pushed(said.id, decode_push(push))
    reply = bytes(said.reply)
    if reply:
        return Replied(said.id, reply)
    if said.watching:
        return Watching(said.id)
    return Ended(said.id) if said.ended else None
