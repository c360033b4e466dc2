"""
What a template for the process engine may say, and how its placeholders are filled in for one attempt.

Template (JSON)::

    {
      "argv": ["prog", "--frame", "{item}"],   required: the program and its arguments, never a shell
      "env": {"SCALE": "{item.scale}"},        added to the clean environment
      "folder": "/path",                       a folder shared by the job's attempts: {shared}; made if absent
      "inherit": ["PATH", "SSH_AUTH_SOCK"],    variables taken over from the worker
      "memory_bytes": 1073741824,              ended when all its processes together use more
      "stdin": "{item}"                        text for its standard input; empty without it
    }

Placeholders: ``{item}`` (a text as it is, anything else as JSON), ``{item.key}`` and ``{item.0}`` inside it, ``{index}`` (position in the
fan-out from 0), ``{position}`` (in the job, from 1), ``{attempt}`` (its number), ``{task}`` (its id), ``{folder}`` (its working directory),
``{shared}``, ``{python}`` (the worker's own interpreter). ``{{`` and ``}}`` stand for braces. What is filled in is never read again:
an item that contains braces, blanks, quotes or a leading dash reaches the program as it is, in one argument.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from typing import cast

import msgspec

from orchestra.engines.arguments import read_item
from orchestra.errors import Malformed
from orchestra.statemachine.replies import Order

MEMORY_BYTES_END = 1 << 63
"""What a limit of the system can say; more would end who sets it, and with it every other program of the worker."""

_PIECE = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One program, before placeholders are filled in; see the module for the fields."""

    argv: tuple[str, ...]
    env: dict[str, str] = {}
    folder: str | None = None
    inherit: tuple[str, ...] = ()
    memory_bytes: int | None = None
    stdin: str | None = None


def read_template(template: bytes) -> Template:
    """Raises Malformed with the name of the field."""
    try:
        read = msgspec.json.decode(template, type=Template)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        message, _, where = str(problem).partition(" - at ")
        where = where.strip("`").removeprefix("$").removeprefix(".")
        raise Malformed(message, where=where or "template") from None
    if not read.argv or not read.argv[0]:
        raise Malformed("names no program", where="argv")
    for name in (*read.env, *read.inherit):
        if not _NAME.fullmatch(name):
            raise Malformed(f"{name[:80]!r} is no name of an environment variable", where="env")
    if read.folder is not None:
        _passable(read.folder, "folder")
    if read.memory_bytes is not None and not 0 < read.memory_bytes < MEMORY_BYTES_END:
        raise Malformed("has to be positive and below 2**63", where="memory_bytes")
    return read


class Blanks:
    """The values of the placeholders of one attempt; each is computed when it is used."""

    def __init__(self, order: Order, folder: str, shared: str) -> None:
        self._order = order
        self._known: Mapping[str, Callable[[], str]] = {
            "index": lambda: str(order.offset),
            "position": lambda: str(order.position),
            "attempt": lambda: str(order.number),
            "task": lambda: order.task_id,
            "folder": lambda: folder,
            "shared": lambda: shared,
            "python": lambda: sys.executable,
        }

    def filled(self, text: str, where: str) -> str:
        """``text`` with its placeholders filled in, each once. Raises Malformed."""
        if "{" in text or "}" in text:
            text = _PIECE.sub(lambda match: self._piece(match[0], where), text)
        return _passable(text, where)

    def _piece(self, piece: str, where: str) -> str:
        if piece in ("{{", "}}"):
            return piece[0]
        if len(piece) == 1:
            remedy = f"write {piece * 2} for a plain {piece}"
            raise Malformed(f"a lone {piece}", where=where, remedy=remedy)
        name = piece[1:-1]
        if name in self._known:
            return self._known[name]()
        head, *keys = name.split(".")
        if head != "item":
            choices = ", ".join(["item", *self._known])
            remedy = f"choose among {choices}; write {{{{ and }}}} for plain braces"
            raise Malformed(f"there is no placeholder {{{name[:80]}}}", where=where, remedy=remedy)
        return self._item(keys, where)

    def _item(self, keys: list[str], where: str) -> str:
        if not self._order.item:
            raise Malformed("{item} is used and the task has no item", where=where)
        value: object = read_item(self._order.item)
        for key in keys:
            value = _inside(value, key, where)
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _passable(text: str, where: str) -> str:
    """The text, which the system takes as an argument or a path."""
    if "\0" in text:
        raise Malformed("a NUL can not be given to a program", where=where)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed("is no valid Unicode text", where=where) from None
    return text


def _inside(value: object, key: str, where: str) -> object:
    remedy = ""
    if isinstance(value, dict):
        mapping = cast("dict[str, object]", value)
        if key in mapping:
            return mapping[key]
        remedy = "it has " + (", ".join(sorted(mapping)[:10]) or "no keys")
    elif isinstance(value, list):
        items = cast("list[object]", value)
        if key.isdecimal() and int(key) < len(items):
            return items[int(key)]
    raise Malformed(f"the item has no {key[:80]!r}", where=where, remedy=remedy)
