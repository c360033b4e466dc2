"""
Stories that can be compared: what happened, without the ids, times and numbers in which two runs of the same scenario differ.

A run is as good as another when their canonical stories are equal, over whichever store and transport each of them went.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestra.ports import Moved
from orchestra.statemachine import ids

Entry = tuple[str, str, str, str]
"""One move: source, verb, target, and the reason with names in place of ids and without times."""

Life = tuple[str, tuple[Entry, ...]]
"""One thing, such as ``job 1 task 3 attempt 2``, and its moves in order."""

_ID = re.compile(rf"\b[{ids.DIGITS}]{{{ids.ROOT_CHARS}}}(?:-[{ids.DIGITS}]{{4}}){{0,2}}\b")
_TIME = re.compile(r"\b\d+(?:\.\d+)?\s?(?:ms|s|min|h)\b")
_KINDS = ("project", "job", "task", "attempt", "worker")
_ROOTS = ("project", "job", "worker")


class _Names:
    """Projects, jobs and workers are numbered as they begin; tasks and attempts carry their positions already."""

    def __init__(self, story: Iterable[Moved]) -> None:
        self._roots: dict[str, str] = {}
        counts = dict.fromkeys(_ROOTS, 0)
        for moved in story:
            if moved.kind in counts and moved.id not in self._roots:
                counts[moved.kind] += 1
                self._roots[moved.id] = f"{moved.kind} {counts[moved.kind]}"

    def of(self, id: str) -> str:
        root, *rest = id.split("-")
        parts = [self._roots.get(root, "something unknown")]
        for word, digits in zip(("task", "attempt"), rest, strict=False):
            parts.append(f"{word} {ids.decode(digits)}")
        return " ".join(parts)

    def told(self, reason: str) -> str:
        """A reason without ids and times."""
        return _TIME.sub("some time", _ID.sub(lambda found: self.of(found[0]), reason))


def canonical(story: Sequence[Moved]) -> tuple[Life, ...]:
    """
    What happened to each thing, in order, sorted by kind and name.

    Things run side by side, so only the order within each one's life counts. ``story`` is a whole story from its first
    entry on: projects, jobs and workers are numbered in the order in which they begin.
    """
    names = _Names(story)
    lives: dict[tuple[str, str], list[Entry]] = {}
    for moved in story:
        entry = (moved.source, moved.verb, moved.target, names.told(moved.reason))
        lives.setdefault((moved.kind, moved.id), []).append(entry)
    places = {kind: place for place, kind in enumerate(_KINDS)}
    in_order = sorted(lives, key=lambda key: (places.get(key[0], len(_KINDS)), key))
    return tuple((names.of(id), tuple(lives[kind, id])) for kind, id in in_order)


def differences(one: Sequence[Moved], other: Sequence[Moved]) -> list[str]:
    """How two stories differ in their canonical forms; a sentence for each thing, none when they are the same."""
    ours, theirs = dict(canonical(one)), dict(canonical(other))
    return [
        f"{name}: {_shown(ours.get(name))} or {_shown(theirs.get(name))}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]


def _shown(life: tuple[Entry, ...] | None) -> str:
    if life is None:
        return "it never was"
    steps = (f"{target} ({reason})" if reason else target for _, _, target, reason in life)
    return " > ".join(steps)
