"""
Placeholders in the words of a command line: ``{item.C}``, ``{shared}``; ``{{`` and ``}}`` stand for
braces.

Some are known when a project file is read and are filled in then; the others are left for the
engine that starts the program.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from orchestra.dialects.quoting import nearest, shown
from orchestra.errors import Malformed

LATER = ("item", "index", "position", "attempt", "task", "folder", "python")
"""What the process engine fills in when an attempt starts."""

EARLY = ("here", "shared")
"""What reading a project file fills in."""

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]|[^{}]+")


def escaped(text: str) -> str:
    """``text`` so that it stands for itself among placeholders."""
    return text.replace("{", "{{").replace("}", "}}")


def early_filled(
    text: str, known: Mapping[str, str], *, keys: frozenset[str] | None, where: str
) -> str:
    """
    ``text`` with the early placeholders filled in; later ones and doubled braces stay.

    Args:
        text: One word of a command line, or a value of an environment.
        known: Values of the early placeholders; one that is absent here may not be used.
        keys: Keys that every item has; empty when items have none to select, None when there are no
            items.
        where: The name of the field, for the error.

    Raises:
        Malformed: An unknown placeholder, a lone brace, or an item that does not exist.
    """
    pieces: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece in ("{", "}"):
            problem = f"a lone {piece} in {shown(text)}"
            raise Malformed(problem, where=where, remedy=f"write {piece * 2} for a plain {piece}")
        if match[1] is None:
            pieces.append(piece)
        else:
            pieces.append(_one(match[1], known, keys, where))
    return "".join(pieces)


def _one(name: str, known: Mapping[str, str], keys: frozenset[str] | None, where: str) -> str:
    if name in known:
        return escaped(known[name])
    if name == "shared":
        remedy = 'write shared = "out" under [project]'
        raise Malformed(
            "{shared} is used and there is no shared folder", where=where, remedy=remedy
        )
    head, dot, key = name.partition(".")
    if head == "item":
        _check_item(name, key if dot else None, keys, where)
    elif name not in LATER:
        choices = [*LATER, *EARLY, *(f"item.{key}" for key in sorted(keys or ()))]
        near = nearest(name, choices)
        remedy = f"did you mean {{{near}}}? " if near else ""
        remedy += "write {{ and }} for plain braces"
        raise Malformed(f"there is no placeholder {{{name[:80]}}}", where=where, remedy=remedy)
    return f"{{{name}}}"


def _check_item(name: str, key: str | None, keys: frozenset[str] | None, where: str) -> None:
    if keys is None:
        remedy = "give the stage an over = ..., or leave {item} out"
        raise Malformed(
            f"{{{name[:80]}}} is used and there are no items", where=where, remedy=remedy
        )
    if key is None or key in keys or key.partition(".")[0] in keys:
        return
    near = nearest(key, sorted(keys))
    remedy = f"did you mean {{item.{near}}}?" if near else ""
    if not near and keys:
        remedy = "items have: " + ", ".join(sorted(keys)[:10])
    raise Malformed(f"not every item has a {key[:80]!r}", where=where, remedy=remedy)
