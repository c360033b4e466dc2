"""
The native channel: questions and answers by number over one websocket, and watches beside them. Sans-I/O; the server's side.

::

    client                                                     server
    {"id": 1, "ask": "SubmitJob", "body": {...}, "key": "k"}   {"id": 1, "reply": {...}}   or   {"id": 1, "problem": {...}}
    {"id": 2, "watch": {"story": {"after": 7}}}                {"id": 2, "watching": true}
                                                               {"id": 2, "push": {"moved": {...}}} ...
    {"id": 2, "unwatch": true}                                 {"id": 2, "ended": true}

``ask`` names a class of the native table; its ``body`` is the same JSON as over HTTP, with the fields of the path in it. Answers
come as they are ready, not in the order of the questions. A message that can not be read is answered by a problem (with id null when
even that is unknown) and changes nothing; binary messages and messages beyond `MESSAGE_BYTES_MAX` close the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from orchestra.dialects.native_calls import BODY_BYTES_MAX
from orchestra.dialects.native_problems import plain, problem_of
from orchestra.dialects.native_pushes import encode_push
from orchestra.dialects.native_table import BY_NAME, WATCHES
from orchestra.dialects.native_wire import malformed
from orchestra.dialects.refusals import BodyTooLong
from orchestra.dialects.session import (
    MESSAGE_TOO_BIG,
    UNSUPPORTED_KIND,
    Action,
    Close,
    Put,
    SendFrame,
    Subscribe,
    Unsubscribe,
)
from orchestra.dialects.strict_json import check_json
from orchestra.errors import LimitReached, Malformed, OrchestraError
from orchestra.ports import Push

MESSAGE_BYTES_MAX = BODY_BYTES_MAX
"""Longest message to the server. A longer job is submitted over HTTP, where a route may allow more than the others."""

REPLY_BYTES_MAX = 32 * 1024 * 1024
"""Longest message to the client; a page that is longer is refused with the advice to ask for a shorter one."""

IN_FLIGHT_MAX = 1_024
"""Unanswered questions and watches of one connection; a client that has more to ask waits for answers first."""

ID_MAX = 2**53
"""Numbers up to here are exact in every JSON reader."""


class _Frame(msgspec.Struct, forbid_unknown_fields=True):
    id: int
    ask: str = ""
    body: msgspec.Raw = msgspec.Raw(b"{}")
    key: str = ""
    watch: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict[str, msgspec.Raw])
    unwatch: bool = False


class _Numbered(msgspec.Struct):
    id: int | None = None


_frames = msgspec.json.Decoder(_Frame)
_numbered = msgspec.json.Decoder(_Numbered)
_encode = msgspec.json.Encoder().encode
_WATCH_BY_WORD = {watch.word: watch for watch in WATCHES}


def _number_of(frame: bytes) -> int | None:
    """The id of a frame that is otherwise unreadable, so that its sender learns which one it was."""
    try:
        return _numbered.decode(frame).id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _problem_frame(tag: int | None, error: OrchestraError) -> SendFrame:
    return SendFrame(_encode({"id": tag, "problem": plain(problem_of(error))}).decode())


class NativeSession:
    """The server's side of one connection: `session.Session`."""

    def __init__(self) -> None:
        self._asked: dict[int, Callable[[Any], bytes]] = {}
        self._watched: dict[int, bool] = {}

    def received(self, frame: str | bytes) -> Sequence[Action]:
        """As `session.Session.received`."""
        if isinstance(frame, bytes):
            return (Close(UNSUPPORTED_KIND, "this channel carries text"),)
        if len(frame) > MESSAGE_BYTES_MAX:
            return (Close(MESSAGE_TOO_BIG, f"longer than {MESSAGE_BYTES_MAX} bytes"),)
        try:
            raw = frame.encode()
        except UnicodeEncodeError:
            return (_problem_frame(None, Malformed("this is no Unicode text", where="message")),)
        if len(raw) > MESSAGE_BYTES_MAX:
            return (Close(MESSAGE_TOO_BIG, f"longer than {MESSAGE_BYTES_MAX} bytes"),)
        try:
            check_json(raw)
            return self._read(raw)
        except (Malformed, LimitReached) as error:
            return (_problem_frame(_number_of(raw), error),)

    def _read(self, raw: bytes) -> Sequence[Action]:
        try:
            frame = _frames.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(error) from None
        if not 0 < frame.id <= ID_MAX:
            raise Malformed(f"is not between 1 and {ID_MAX}", where="id")
        if (frame.ask != "") + bool(frame.watch) + frame.unwatch != 1:
            raise Malformed("exactly one of ask, watch and unwatch is needed", where="ask")
        if frame.unwatch:
            return (Unsubscribe(frame.id),) if frame.id in self._watched else ()
        if frame.id in self._asked or frame.id in self._watched:
            raise Malformed("this number is in use", where="id", remedy="count up")
        if len(self._asked) + len(self._watched) >= IN_FLIGHT_MAX:
            raise LimitReached(
                f"{IN_FLIGHT_MAX} questions are unanswered", remedy="wait for answers first"
            )
        return self._open_watch(frame) if frame.watch else self._put(frame)

    def _put(self, frame: _Frame) -> Sequence[Action]:
        operation = BY_NAME.get(frame.ask)
        if operation is None:
            raise Malformed("nothing of this name can be asked", where="ask")
        try:
            ask = operation.decode_frame(bytes(frame.body), frame.key)
        except Malformed as error:
            where = error.where if error.where in ("key", "body") else f"body.{error.where}"
            raise Malformed(error.message, where=where, remedy=error.remedy) from None
        self._asked[frame.id] = operation.output.encode
        return (Put(frame.id, operation.method, operation.name, ask),)

    def _open_watch(self, frame: _Frame) -> Sequence[Action]:
        word, body = next(iter(frame.watch.items()))
        watch = _WATCH_BY_WORD.get(word)
        if watch is None or len(frame.watch) > 1:
            words = " or ".join(_WATCH_BY_WORD)
            raise Malformed(f"one of {words} is needed", where=f"watch.{word[:200]}")
        try:
            wanted = watch.input.codec.decode(bytes(body))
        except Malformed as error:
            where = f"watch.{word}.{error.where}"
            raise Malformed(error.message, where=where, remedy=error.remedy) from None
        self._watched[frame.id] = True
        return (Subscribe(frame.id, "GET", watch.name, wanted),)

    def answered(self, tag: int, answer: object) -> Sequence[Action]:
        """As `session.Session.answered`."""
        reply = self._asked[tag](answer)
        del self._asked[tag]
        if len(reply) > REPLY_BYTES_MAX:
            error = BodyTooLong(
                f"the answer has {len(reply)} bytes", where="limit", remedy="ask for a shorter page"
            )
            return (_problem_frame(tag, error),)
        return (SendFrame((b'{"id":%d,"reply":%s}' % (tag, reply)).decode()),)

    def refused(self, tag: int, error: OrchestraError) -> Sequence[Action]:
        """As `session.Session.refused`."""
        self._asked.pop(tag, None)
        self._watched.pop(tag, None)
        return (_problem_frame(tag, error),)

    def watching(self, tag: int) -> Sequence[Action]:
        """As `session.Session.watching`."""
        return (SendFrame(f'{{"id":{tag},"watching":true}}'),)

    def pushed(self, tag: int, push: Push) -> Sequence[Action]:
        """As `session.Session.pushed`."""
        return (SendFrame((b'{"id":%d,"push":%s}' % (tag, encode_push(push))).decode()),)

    def ended(self, tag: int) -> Sequence[Action]:
        """As `session.Session.ended`."""
        self._watched.pop(tag, None)
        return (SendFrame(f'{{"id":{tag},"ended":true}}'),)
