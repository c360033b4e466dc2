"""
The lifecycle tables as a page to read: one Mermaid diagram and one table of moves for each kind.

``docs/lifecycles.md`` is what `document` returns; a test compares the two. Nothing here knows a status by name, so there is
no special case that could drift from the tables.
"""

from __future__ import annotations

from orchestra.statemachine.lifecycles import TABLES, Verb
from orchestra.statemachine.table import Table

_EDGE = "[*]"
"""Mermaid's word for where a thing begins and ends."""

_BY_REQUEST = {Verb.REVIVE, Verb.HOLD}

_HEAD = """\
# Lifecycles

This page is generated from `orchestra/statemachine/lifecycles.py`, the one file that holds every status, verb and legal
move. The core moves records only along these rows. Regenerate it with `python -m orchestra diagram > docs/lifecycles.md`.
"""


def _node(status: str) -> str:
    """A name that Mermaid takes for a node: its own words (``state``, ``end``) are avoided by the prefix."""
    return "s_" + status.replace("-", "_")


def resting(table: Table) -> tuple[str, ...]:
    """The statuses that nothing leaves by itself: no verb leads on, or only an explicit request to try again."""
    return tuple(status for status in table.statuses() if set(table.verbs(status)) <= _BY_REQUEST)


def mermaid(table: Table) -> str:
    """The table as the text of a Mermaid ``stateDiagram-v2``, without the fence around it."""
    lines = ["stateDiagram-v2"]
    lines += [f'    state "{status}" as {_node(status)}' for status in table.statuses()]
    for row in table.rows:
        source = _EDGE if row.source is None else _node(row.source)
        lines.append(f"    {source} --> {_node(row.target)}: {row.verb}")
    lines += [f"    {_node(status)} --> {_EDGE}" for status in resting(table)]
    return "\n".join(lines)


def rests(table: Table) -> str:
    """One sentence: where it ends."""
    ends = ", ".join(f"`{status}`" for status in resting(table))
    return f"It ends in {ends}." if ends else "It has no end."


def moves(table: Table) -> str:
    """The table's rows as Markdown: from, verb, to, and why."""
    lines = ["| from | verb | to | why |", "|---|---|---|---|"]
    lines += [
        f"| {row.source or ''} | {row.verb} | {row.target} | {row.why} |" for row in table.rows
    ]
    return "\n".join(lines)


def document() -> str:
    """The whole page in Markdown, ending in a line break: what ``python -m orchestra diagram`` prints."""
    parts = [_HEAD]
    for table in TABLES.values():
        drawing = f"```mermaid\n{mermaid(table)}\n```"
        parts.append(f"## {table.kind}\n\n{drawing}\n\n{rests(table)}\n\n{moves(table)}\n")
    return "\n".join(parts)
