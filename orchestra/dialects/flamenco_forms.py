"""Bodies as Flamenco's programs send them: forms, JSON objects and multipart forms with a file, all bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl

import msgspec

from orchestra.dialects.strict_json import check_json
from orchestra.dialects.wire import WireRequest
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

FIELDS_MAX = 64
"""The fullest form of a real worker has nine fields."""

FIELD_CHARS_MAX = 1 << 30
"""A whole log comes in one field with each report: it is bounded with the body, by the route and ``limits.body_bytes_max``."""

NUMBER_MAX = 2**63 - 1
_BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,./:=?-]{1,200})"?')
_NAME = re.compile(r'[; ]name="([^"\r\n]{1,200})"')
_FILE_NAME = re.compile(r'filename="([^"\r\n]{0,400})"')
_DIGITS = re.compile(r"-?[0-9]{1,19}")


@value
class Form:
    """What a body holds: plain fields, and files by the name of their field."""

    fields: Mapping[str, str]
    files: Mapping[str, bytes]

    def text(self, name: str, default: str = "", *, chars_max: int = FIELD_CHARS_MAX) -> str:
        """A field. Raises `Malformed` when it is too long."""
        found = self.fields.get(name, default)
        if len(found) > chars_max:
            raise Malformed(f"is longer than {chars_max} characters", where=name)
        return found

    def number(self, name: str, default: int | None, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``. Raises `Malformed`; without it and without a default too."""
        found = self.fields.get(name)
        if found is None:
            if default is None:
                raise Malformed(MISSING, where=name)
            return default
        return whole(found, name, low, high)


MISSING = "Missing required parameter in the JSON body or the post body or the query string"


def whole(text: str, name: str, low: int, high: int) -> int:
    """A whole number in a text. Raises `Malformed`."""
    if _DIGITS.fullmatch(text) is None or not low <= int(text) <= high:
        raise Malformed(f"is no whole number from {low} to {high}", where=name)
    return int(text)


def path_number(request: WireRequest, name: str) -> int:
    """A whole number in the address. Raises `Malformed`."""
    return whole(request.path[name], name, 0, NUMBER_MAX)


def read_form(request: WireRequest) -> Form:
    """The fields of a request: of its body, else of the query part of its address. Raises `Malformed`."""
    kind, _, rest = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if not request.body:
        return Form(request.query, {})
    if kind == "multipart/form-data":
        return _multipart(request.body, rest)
    if kind == "application/json":
        return Form({**request.query, **_object(request.body)}, {})
    return Form({**request.query, **_urlencoded(request.body)}, {})


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed("is no text in UTF-8", where=where) from None


def _urlencoded(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise Malformed("the form can not be read", where="body") from None
    # Flamenco's programs send a field once; of `tasks=1&tasks=2` all count.
    found: dict[str, str] = {}
    for name, text in pairs:
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


def _object(body: bytes) -> dict[str, str]:
    check_json(body)
    try:
        found: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("the body is no JSON", where="body") from None
    if not isinstance(found, dict):
        raise Malformed("the body is no JSON object", where="body")
    fields = cast("dict[str, object]", found)
    if len(fields) > FIELDS_MAX:
        raise Malformed(f"has more than {FIELDS_MAX} fields", where="body")
    # A form has texts only, so that a number in JSON and one in a form are read by the same lines.
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in fields.items()
        if value is not None
    }


def _multipart(body: bytes, parameters: str) -> Form:
    match = _BOUNDARY.search(parameters)
    if match is None:
        raise Malformed("has no boundary", where="Content-Type")
    mark = b"--" + match[1].encode()
    parts = body.split(mark)
    if len(parts) > FIELDS_MAX + 1 or not parts[-1].startswith(b"--"):
        raise Malformed("the parts of the form can not be told apart", where="body")
    fields: dict[str, str] = {}
    files: dict[str, bytes] = {}
    for part in parts[1:-1]:
        head, found, content = part.partition(b"\r\n\r\n")
        told = _text(head[:2_000], "body")
        name = _NAME.search(told)
        if not found or name is None:
            raise Malformed("a part of the form has no name", where="body")
        content = content.removesuffix(b"\r\n")
        if _FILE_NAME.search(told) is not None:
            files[name[1]] = content
        else:
            fields[name[1]] = _text(content, name[1])
    return Form(fields, files)
