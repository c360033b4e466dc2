"""
Where one HTTP/1.1 request ends and the next begins: a strict scanner in front of the parser. Pure: bytes in, bytes out.

Its reading is a strict part of what RFC 9112 allows, so that no two programs in a chain can disagree about a message's end
(request smuggling): lines end in CR LF and nothing else, no folded lines, one framing header, one of each kind. What it
lets through, the parser behind it reads once more.
"""

from __future__ import annotations

import re
from enum import Enum

from orchestra.errors import OrchestraError
from orchestra.statemachine.values import value

CHUNK_LINE_BYTES_MAX = 256
"""A chunk's size line: 16 digits and a short extension. Longer ones carry nothing that anybody reads."""

TRAILER_BYTES_MAX = 4_096
"""Trailer fields are accepted and dropped."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) ([\x21-\x7e]+) HTTP/(\d\.\d)")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_STRAY = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(;[\t\x20-\x7e]*)?")


class RefusedRequest(OrchestraError):
    """Bytes that are not a request that this server reads. ``status`` is the answer's; the connection ends with it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Phase(Enum):
    """What the next byte belongs to."""

    REST = "before a request"
    HEAD = "in a header"
    BODY = "in a body"
    DONE = "after a request, until its answer is given"


@value
class Head:
    """What the frame of a request depends on."""

    method: bytes
    upgrade: bool
    length: int
    chunked: bool


def _is_number(value: bytes) -> bool:
    return re.fullmatch(rb"[0-9]{1,18}", value) is not None


def parse_head(head: bytes, fields_max: int) -> Head:
    """
    Read a complete header, its empty line included.

    Raises:
        RefusedRequest: 400, 431 (too many fields), 501 (another transfer coding) or 505 (another version).
    """
    lines = head[:-4].split(b"\r\n")
    line = _REQUEST_LINE.fullmatch(lines[0])
    if line is None:
        raise RefusedRequest(400, "the request line is not METHOD TARGET HTTP/1.1")
    if line.group(3) not in (b"1.1", b"1.0"):
        raise RefusedRequest(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
    if len(lines) - 1 > fields_max:
        raise RefusedRequest(431, f"more than {fields_max} header fields")
    fields: dict[bytes, list[bytes]] = {}
    for text in lines[1:]:
        if text[:1] in (b" ", b"\t"):
            raise RefusedRequest(400, "a header field is folded over two lines")
        field = _FIELD.fullmatch(text)
        if field is None:
            raise RefusedRequest(400, "a header field is not NAME: VALUE")
        fields.setdefault(field.group(1).lower(), []).append(field.group(2).strip())
    return _frame(line.group(1), line.group(3), fields)


def _frame(method: bytes, version: bytes, fields: dict[bytes, list[bytes]]) -> Head:
    lengths = fields.get(b"content-length", [])
    codings = fields.get(b"transfer-encoding", [])
    hosts = fields.get(b"host", [])
    if len(hosts) > 1 or (version == b"1.1" and not hosts):
        raise RefusedRequest(400, "exactly one Host field is needed")
    if lengths and codings:
        raise RefusedRequest(400, "Content-Length and Transfer-Encoding together")
    if len(lengths) > 1 or (lengths and not _is_number(lengths[0])):
        raise RefusedRequest(400, "Content-Length is not one number")
    if codings and version == b"1.0":
        raise RefusedRequest(400, "HTTP/1.0 has no Transfer-Encoding")
    if len(codings) > 1:
        raise RefusedRequest(400, "more than one Transfer-Encoding field")
    if codings and codings[0].lower() != b"chunked":
        raise RefusedRequest(501, "the only transfer coding spoken here is chunked")
    length = int(lengths[0]) if lengths else 0
    tokens = b",".join(fields.get(b"connection", [])).lower().split(b",")
    upgrade = b"upgrade" in {token.strip() for token in tokens} and b"upgrade" in fields
    if upgrade and (method != b"GET" or length or codings):
        raise RefusedRequest(400, "an upgrade is a GET without a body")
    return Head(method, upgrade, length, bool(codings))


class Framing:
    """
    The scanner of one connection.

    Feed it with `feed`; after each `Phase.DONE`, call `next_request` when the answer has been given.

    Args:
        head_bytes_max: Bytes of request line and header fields together.
        fields_max: Header fields.
    """

    def __init__(self, head_bytes_max: int, fields_max: int) -> None:
        self._head_bytes_max = head_bytes_max
        self._fields_max = fields_max
        self._held = bytearray()
        self._left = 0
        self._trailer_left = 0
        self._step = self._size_line
        self.phase = Phase.REST
        self.head: Head | None = None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """
        Take bytes. Returns those that the parser may see now, and those that lie behind the request's end.

        A header is let through whole, and only when it is good.

        Raises:
            RefusedRequest: The bytes are no request that is read here.
        """
        if self.phase is Phase.DONE:
            return b"", data
        if self.phase is Phase.BODY:
            return self._body(data)
        return self._header(data)

    def next_request(self) -> None:
        """The request was answered: the next byte begins another."""
        self.phase = Phase.REST
        self.head = None

    def _header(self, data: bytes) -> tuple[bytes, bytes]:
        if self.phase is Phase.REST:
            # RFC 9112, 2.2: an empty line before a request is passed over (one; more are noise).
            if not self._held and data.startswith(b"\r\n"):
                data = data[2:]
            if not data:
                return b"", b""
            self.phase = Phase.HEAD
        seen = len(self._held)
        self._held += data
        end = self._held.find(b"\r\n\r\n", max(0, seen - 3))
        stop = end + 4 if end >= 0 else len(self._held)
        # From the last byte seen before: it may be a CR whose LF is the first byte of these. What lies beyond the bound is not
        # looked at, so that the answer is the same however the bytes come.
        looked = min(stop, self._head_bytes_max)
        if _STRAY.search(self._held, max(0, seen - 1), looked) is not None:
            raise RefusedRequest(400, "lines end in CR LF, and a header has no NUL")
        if stop > self._head_bytes_max:
            raise RefusedRequest(431, f"the header is longer than {self._head_bytes_max} bytes")
        if end < 0:
            return b"", b""
        head, rest = bytes(self._held[:stop]), bytes(self._held[stop:])
        self._held.clear()
        self.head = parse_head(head, self._fields_max)
        self._step = self._size_line
        self._left = self.head.length
        self.phase = Phase.BODY if self.head.chunked or self._left else Phase.DONE
        if self.phase is Phase.DONE or not rest:
            return head, rest
        body, rest = self._body(rest)
        return head + body, rest

    def _body(self, data: bytes) -> tuple[bytes, bytes]:
        if self.head is None or not self.head.chunked:
            taken = data[: self._left]
            self._left -= len(taken)
            if not self._left:
                self.phase = Phase.DONE
            return taken, data[len(taken) :]
        at = 0
        while at < len(data) and self.phase is Phase.BODY:
            at = self._step(data, at)
        return data[:at], data[at:]

    def _line(self, data: bytes, at: int, most: int) -> tuple[bytes | None, int]:
        """The line that ends in ``data``, with what was held of it before; None while it has no end."""
        end = data.find(b"\n", at)
        stop = end + 1 if end >= 0 else len(data)
        self._held += data[at:stop]
        if len(self._held) > most:
            raise RefusedRequest(400, f"a line of a chunked body is longer than {most} bytes")
        if end < 0:
            return None, stop
        line = bytes(self._held)
        self._held.clear()
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise RefusedRequest(400, "lines of a chunked body end in CR LF")
        return line[:-2], stop

    def _size_line(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at, CHUNK_LINE_BYTES_MAX)
        if line is None:
            return at
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise RefusedRequest(400, "a chunk does not begin with its size")
        self._left = int(size.group(1), 16)
        self._trailer_left = TRAILER_BYTES_MAX
        self._step = self._chunk if self._left else self._trailer
        return at

    def _chunk(self, data: bytes, at: int) -> int:
        taken = min(self._left, len(data) - at)
        self._left -= taken
        if not self._left:
            self._step = self._chunk_end
        return at + taken

    def _chunk_end(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at, 2)
        if line is not None:
            if line:
                raise RefusedRequest(400, "a chunk is longer than its size")
            self._step = self._size_line
        return at

    def _trailer(self, data: bytes, at: int) -> int:
        line, at = self._line(data, at, self._trailer_left)
        if line is None:
            return at
        self._trailer_left -= len(line) + 2
        if not line:
            self.phase = Phase.DONE
        elif line[:1] in (b" ", b"\t") or _FIELD.fullmatch(line) is None:
            raise RefusedRequest(400, "a trailer field is not NAME: VALUE")
        return at
