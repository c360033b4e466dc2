"""One operation of the native dialect, from both ends: how asking and answering travel over HTTP and over a channel."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, Protocol, cast
from urllib.parse import quote, urlencode

import attrs
import msgspec

from orchestra.dialects.asks import Ask, Keyed
from orchestra.dialects.native_wire import Form, JsonCodec, codec_of, malformed
from orchestra.dialects.strict_json import INTEGER_MAX, check_json
from orchestra.dialects.wire import Role, Route, WireRequest, WireResponse
from orchestra.errors import Malformed
from orchestra.ports import LogRead, Moved
from orchestra.statemachine.commands import Command
from orchestra.statemachine.values import value

BODY_BYTES_MAX = 1024 * 1024 + 4 * 1024
"""A largest result (1 MiB) and the words around it, in a body or in one message on a channel."""

SUBMIT_BYTES_MAX = 32 * 1024 * 1024
"""A job whose fan-out is a list of half a million items; longer ones belong in a dataset, or are a range."""

KEY_CHARS_MAX = 200
PATH_CHARS_MAX = 200
"""Ids have at most 41 characters, names at most 200."""

_KEY = re.compile(rf"[\x21-\x7e]{{0,{KEY_CHARS_MAX}}}")


@value
class WireCall:
    """A request as a client sends it. ``target`` is the path and the query, percent-encoded."""

    method: str
    target: str
    body: bytes | None


def checked_key(key: str, *, where: str) -> str:
    """The idempotency key. Raises `Malformed` unless it is at most `KEY_CHARS_MAX` visible ASCII characters."""
    if _KEY.fullmatch(key) is None:
        raise Malformed(f"a key is 1 to {KEY_CHARS_MAX} visible ASCII characters", where=where)
    return key


class Input(Protocol):
    """How what is asked travels."""

    cls: type[Any]
    codec: JsonCodec
    """The whole of it as JSON, as on a channel."""

    def decode(self, request: WireRequest) -> Any:
        """The core's value of an HTTP request. Raises `Malformed`."""
        ...

    def call(self, method: str, path: str, asked: Any) -> WireCall:
        """The HTTP request that `decode` reads."""
        ...


class Output(Protocol):
    """How what is answered travels."""

    cls: type[Any] | None

    def respond(self, answer: Any) -> WireResponse:
        """The answer as an HTTP response."""
        ...

    def read(self, headers: Mapping[str, str], body: bytes) -> Any:
        """The answer out of a response. Raises `Malformed`."""
        ...

    def encode(self, answer: Any) -> bytes:
        """The answer as JSON, as on a channel."""
        ...

    def decode(self, body: bytes) -> Any:
        """What `encode` wrote. Raises `Malformed`."""
        ...


def _path_fields(path: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\{([a-z_]+)\}", path))


def _filled(path: str, asked: Any, names: tuple[str, ...]) -> str:
    return path.format(**{name: quote(str(getattr(asked, name)), safe="") for name in names})


def _of_path(request: WireRequest, names: tuple[str, ...]) -> dict[str, Any]:
    found = {name: request.path[name] for name in names}
    for name, text in found.items():
        if len(text) > PATH_CHARS_MAX:
            raise Malformed(f"is longer than {PATH_CHARS_MAX} characters", where=name)
    return found


def _as_text(value: object) -> str:
    """A value in the query part of an address."""
    if isinstance(value, tuple):
        return ",".join(map(str, cast("tuple[object, ...]", value)))
    return str(value).lower() if isinstance(value, bool) else str(value)


class BodyInput:
    """Fields in the path and a JSON body; a missing body is an empty object. An `Idempotency-Key` makes a command `Keyed`."""

    def __init__(self, cls: type[Any], path: str) -> None:
        self.cls = cls
        self.path_fields = _path_fields(path)
        self.codec = codec_of(cls, strict=True)
        self.body = self.codec
        if self.path_fields:
            name = f"{cls.__name__}Body"
            self.body = JsonCodec(
                partial(Form, cls, strict=True, without=self.path_fields, name=name)
            )
        self.needs_body = any(
            field.default is attrs.NOTHING and field.name not in self.path_fields
            for field in attrs.fields(cls)
        )
        self.keyed = issubclass(cls, Command)

    def decode(self, request: WireRequest) -> Any:
        """As `Input.decode`."""
        if request.query:
            raise Malformed("no such parameter", where=next(iter(request.query))[:PATH_CHARS_MAX])
        body = request.body
        if body:
            check_json(body)
        elif self.needs_body:
            raise Malformed("a JSON body is needed", where="body")
        asked: Any
        if self.path_fields:
            fields = self.body.fields(body or b"{}")
            asked = self.cls(**_of_path(request, self.path_fields), **fields)
        else:
            asked = self.body.decode(body or b"{}")
        if not self.keyed:
            return asked
        key = request.headers.get("idempotency-key", "")
        return Keyed(asked, checked_key(key, where="Idempotency-Key")) if key else asked

    def call(self, method: str, path: str, asked: Any) -> WireCall:
        """As `Input.call`."""
        return WireCall(method, _filled(path, asked, self.path_fields), self.body.encode(asked))


class QueryInput:
    """
    Fields in the path and in the query part of the address, as text; lists have commas between their members.

    Args:
        cls: What is asked.
        path: The route's path.
        resumed: The integer field that a ``Last-Event-ID`` replaces; empty without one.
    """

    def __init__(self, cls: type[Any], path: str, *, resumed: str = "") -> None:
        self.cls = cls
        self.path_fields = _path_fields(path)
        self.codec = codec_of(cls, strict=True)
        self._resumed = resumed
        self._defaults = {field.name: field.default for field in attrs.fields(cls)}
        self._lists = frozenset(
            name for name, default in self._defaults.items() if isinstance(default, tuple)
        )

    @cached_property
    def query(self) -> Form:
        """What travels in the query part."""
        name = f"{self.cls.__name__}Query"
        return Form(self.cls, strict=True, without=self.path_fields, name=name)

    def decode(self, request: WireRequest) -> Any:
        """As `Input.decode`."""
        if request.body:
            raise Malformed("this request takes no body", where="body")
        given: dict[str, Any] = dict(request.query)
        for name in self._lists & given.keys():
            given[name] = given[name].split(",") if given[name] else []
        last = request.headers.get("last-event-id", "") if self._resumed else ""
        if last:
            given[self._resumed] = last
        try:
            # In text, "5" is a number and "true" is a truth value.
            found = msgspec.convert(given, self.query.struct, strict=False)
        except msgspec.ValidationError as error:
            raise malformed(error) from None
        fields = self.query.fields(found)
        for name, field in fields.items():
            if isinstance(field, int) and not -INTEGER_MAX <= field <= INTEGER_MAX:
                raise Malformed("does not fit in 64 bits", where=name)
        return self.cls(**_of_path(request, self.path_fields), **fields)

    def call(self, method: str, path: str, asked: Any) -> WireCall:
        """As `Input.call`."""
        query = {
            name: _as_text(value)
            for name in self.query.names
            if (value := getattr(asked, name)) != self._defaults[name]
        }
        target = _filled(path, asked, self.path_fields)
        return WireCall(method, f"{target}?{urlencode(query)}" if query else target, None)


class JsonOutput:
    """
    The answer as a JSON object.

    Args:
        cls: The class of the answer.
        located: (status, Location) by the answer, where it is not 200 without one.
    """

    def __init__(
        self, cls: type[Any], *, located: Callable[[Any], tuple[int, str]] | None = None
    ) -> None:
        self.cls: type[Any] | None = cls
        self.located = located
        self.codec = codec_of(cls, strict=False)
        self.encode = self.codec.encode
        self.decode = self.codec.decode

    def respond(self, answer: Any) -> WireResponse:
        """As `Output.respond`."""
        if self.located is None:
            return WireResponse(200, self.encode(answer))
        status, location = self.located(answer)
        return WireResponse(status, self.encode(answer), headers=(("location", location),))

    def read(self, headers: Mapping[str, str], body: bytes) -> Any:
        """As `Output.read`."""
        del headers
        return self.decode(body)


class NoOutput:
    """Nothing but success: 204, and null on a channel."""

    cls: type[Any] | None = None

    def respond(self, answer: Any) -> WireResponse:
        """As `Output.respond`."""
        del answer
        return WireResponse(204, b"")

    def read(self, headers: Mapping[str, str], body: bytes) -> None:
        """As `Output.read`."""

    def encode(self, answer: Any) -> bytes:
        """As `Output.encode`."""
        del answer
        return b"null"

    def decode(self, body: bytes) -> None:
        """As `Output.decode`."""


@value
class StoryPage:
    """Entries of the story, oldest first. Go on with ``after`` set to the last one's number."""

    items: tuple[Moved, ...]


class StoryOutput(JsonOutput):
    """A tuple of entries, as a page."""

    def __init__(self) -> None:
        super().__init__(StoryPage)
        page = self.codec

        def encode(answer: Any) -> bytes:
            return page.encode(StoryPage(tuple(answer)))

        def decode(body: bytes) -> Any:
            return page.decode(body).items

        self.encode = encode
        self.decode = decode


class LogOutput:
    """Over HTTP the bytes themselves, and ``Log-Size``, how many are stored in all; in base64 on a channel."""

    def __init__(self) -> None:
        self.cls: type[Any] | None = None
        self._codec = codec_of(LogRead, strict=False)
        self.encode = self._codec.encode
        self.decode = self._codec.decode

    def respond(self, answer: LogRead) -> WireResponse:
        """As `Output.respond`."""
        headers = (("log-size", str(answer.size)),)
        return WireResponse(200, answer.data, "text/plain; charset=utf-8", headers)

    def read(self, headers: Mapping[str, str], body: bytes) -> LogRead:
        """As `Output.read`."""
        size = headers.get("log-size", "")
        if not size.isdecimal():
            raise Malformed("the answer does not say how much is stored", where="Log-Size")
        return LogRead(body, int(size))


@value
class Operation:
    """
    One thing that can be asked, and where.

    ``name`` is the class's, and what a channel calls it. ``path`` is the full path.
    """

    method: str
    path: str
    role: Role
    input: Input
    output: Output
    summary: str
    body_bytes_max: int = BODY_BYTES_MAX

    @property
    def name(self) -> str:
        """Its name in the policy table, in the published document and on a channel."""
        return self.input.cls.__name__

    @property
    def changes(self) -> bool:
        """Whether it does something, as opposed to reading."""
        return self.method != "GET"

    def route(self) -> Route:
        """As the transports mount it."""
        respond = self.output.respond
        return Route(
            name=self.name,
            method=self.method,
            path=self.path,
            decode=self.input.decode,
            encode=lambda _request, answer: respond(answer),
            role=self.role,
            body_bytes_max=self.body_bytes_max,
            summary=self.summary,
        )

    def call(self, asked: Any) -> WireCall:
        """What a client sends over HTTP."""
        return self.input.call(self.method, self.path, asked)

    def decode_frame(self, body: bytes, key: str) -> Ask:
        """What a channel's message asks. Raises `Malformed`; the message has passed `strict_json.check_json` before."""
        asked: Ask = self.input.codec.decode(body)
        checked_key(key, where="key")
        if not key:
            return asked
        if not isinstance(asked, Command):
            raise Malformed("only commands take a key", where="key")
        return Keyed(asked, key)
