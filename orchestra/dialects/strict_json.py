"""
JSON from strangers, checked before it is read: what RFC 8259 leaves open and two programs might read differently is refused.

Refused are: bytes that are not UTF-8, NaN and Infinity, numbers beyond 64 bits or beyond a double, names that come twice in one
object, half surrogate pairs, and nesting deeper than `DEPTH_MAX`. The usual body is read and written anew in C and compared; the
slower, closer look is taken only where a byte pattern or that comparison says that it may be needed.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import msgspec

from orchestra.errors import Malformed

DEPTH_MAX = 32
"""Deeper nesting is nobody's options or result, and costs readers stack."""

INTEGER_MAX = 2**63 - 1
"""Whole numbers have to fit every store and language."""

_DIGITS_MAX = len(str(-INTEGER_MAX))
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_DOUBTFUL = re.compile(rb"[0-9]{19}|[eE]\+?[0-9]{3}|\\u[dD][89a-fA-F]")
"""Numbers that may be too large, and halves of surrogate pairs: a hit calls for the slower decoder."""

_MEMBER = b'":'
_UNCOUNTABLE = re.compile(rb'\\u|"[ \t\r\n]+:')
"""What makes the number of `_MEMBER` in a body differ from that in the same values written anew: see `_names_are_single`."""

_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_ALIKE = bytes.maketrans(b"{}", b"[]")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Malformed("this name comes twice in one object", where=name[:200])
            seen.add(name)
    return found


def _no_constant(word: str) -> float:
    raise Malformed(
        f"{word} is not a number in JSON", where="body", remedy="leave it out or use null"
    )


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS_MAX or not -INTEGER_MAX - 1 <= int(digits) <= INTEGER_MAX:
        raise Malformed(
            f"{digits[:24]} does not fit in 64 bits", where="body", remedy="send it as text"
        )
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Malformed(f"{digits[:24]} does not fit in a double", where="body")
    return number


_read = msgspec.json.Decoder().decode
_write = msgspec.json.Encoder().encode
_quick = json.JSONDecoder(object_pairs_hook=_each_once, parse_constant=_no_constant)
_close = json.JSONDecoder(
    object_pairs_hook=_each_once,
    parse_constant=_no_constant,
    parse_int=_whole,
    parse_float=_finite,
)


def _deeper_than_allowed(body: bytes) -> bool:
    # Each round takes away the innermost pairs, so what is left after DEPTH_MAX rounds was nested deeper (or is unbalanced).
    brackets = _STRING.sub(b"", body).translate(_ALIKE, _NOT_BRACKETS)
    for _ in range(DEPTH_MAX):
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def _names_are_single(body: bytes) -> bool:
    """
    Whether this is JSON without a name that comes twice; False when only the slower look can tell.

    The values are read, which drops all but the last of equal names, and written anew. Each member has one ``":`` in both, and each text
    that has one keeps it, as long as no character is written by its number and no space stands before a colon. So the numbers are equal
    when nothing was dropped, and only then.
    """
    if _UNCOUNTABLE.search(body) is not None:
        return False
    try:
        found = _read(body)
    except (msgspec.DecodeError, RecursionError):
        return False
    return body.count(_MEMBER) == _write(found).count(_MEMBER)


def check_json(body: bytes) -> None:
    """
    Refuse a body that is not JSON in the strict sense above.

    Raises:
        Malformed: ``where`` is the field's name where it is known, else the position or ``body``.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Malformed("the body is not UTF-8", where=f"byte {error.start}") from None
    if body.count(b"[") + body.count(b"{") > DEPTH_MAX and _deeper_than_allowed(body):
        raise Malformed(f"nested deeper than {DEPTH_MAX}, or brackets do not match", where="body")
    doubtful = _DOUBTFUL.search(body) is not None
    if not doubtful and _names_are_single(body):
        return
    try:
        found = (_close if doubtful else _quick).decode(text)
        if doubtful:
            json.dumps(found, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise Malformed(f"this is not JSON: {error.msg}", where=f"character {error.pos}") from None
    except UnicodeEncodeError:
        raise Malformed("half a surrogate pair is no character", where="body") from None
