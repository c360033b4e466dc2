"""
What a stage is done for: ``over`` as people write it, unfolded into items.

============================================= =====================================================
``over = "1-24"``, ``"0-100:10"``             whole numbers, both ends included, with a step
``over = ["a", {x = 1}, 2.5]``                each entry is an item
``over = { C = [1, 10], side = "1-3" }``      a grid: one object for each combination, the last key fastest
============================================= =====================================================
"""

from __future__ import annotations

import itertools
import math
import re
from typing import cast

from orchestra.dialects.quoting import shown
from orchestra.dialects.toml_fields import Table, inside, json_bytes, table
from orchestra.errors import Malformed
from orchestra.statemachine.limits import ITEMS_BYTES_MAX, TASKS_PER_JOB_MAX
from orchestra.statemachine.records import Span
from orchestra.statemachine.values import value

_SPAN = re.compile(r"(-?[0-9]{1,18})-(-?[0-9]{1,18})(?::([0-9]{1,18}))?")


@value
class FanOut:
    """
    A stage's items.

    ``keys`` are what can be selected in every item (empty when items are plain values, None when there are
    no items); ``bytes_count`` is what the items take as JSON.
    """

    over: Span | tuple[bytes, ...] | None
    size: int
    keys: frozenset[str] | None
    bytes_count: int


def unfold(value: object, where: str) -> FanOut:
    """The items of ``over``, each as JSON. Raises `Malformed`."""
    if isinstance(value, str):
        span = _span(value, where)
        return FanOut(span, len(span), frozenset(), 0)
    if isinstance(value, dict):
        return _grid(table(cast("object", value), where), where)
    if not isinstance(value, list):
        raise Malformed(f"{shown(value)} is nothing to go over", where=where, remedy=_REMEDY)
    entries = cast("list[object]", value)
    _check_size(len(entries), where)
    items = tuple(json_bytes(entry, f"{where}[{i}]") for i, entry in enumerate(entries))
    shared: frozenset[str] | None = None
    for entry in entries:
        keys = _keys_of(entry)
        shared = keys if shared is None else shared & keys
    return FanOut(items, len(items), shared, sum(map(len, items)))


def _keys_of(entry: object) -> frozenset[str]:
    """What ``{item.KEY}`` may select: the keys of an object, the positions in a list."""
    if isinstance(entry, dict):
        return frozenset(table(cast("object", entry), ""))
    if isinstance(entry, list):
        return frozenset(str(place) for place in range(len(cast("list[object]", entry))))
    return frozenset()


_REMEDY = 'write "1-24", a list, or a grid such as { C = [1, 10] }'


def _span(value: str, where: str) -> Span:
    match = _SPAN.fullmatch(value)
    if match is None:
        raise Malformed(f"{shown(value)} is not a range", where=where, remedy=_REMEDY)
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if not step:
        raise Malformed("a step of 0 leads nowhere", where=where)
    if last < first:
        remedy = f'did you mean "{last}-{first}"?'
        raise Malformed(f"{shown(value)} ends before it begins", where=where, remedy=remedy)
    _check_size((last - first) // step + 1, where)
    return Span(first, last + 1, step)


def _grid(value: Table, where: str) -> FanOut:
    axes: list[list[bytes]] = []
    for key, entries in value.items():
        at = inside(where, key)
        name = json_bytes(key, at) + b":"
        if isinstance(entries, str):
            span = _span(entries, at)
            numbers = range(span.start, span.stop, span.step)
            axes.append([name + str(number).encode() for number in numbers])
        elif isinstance(entries, list):
            cells = cast("list[object]", entries)
            axes.append([name + json_bytes(cell, f"{at}[{i}]") for i, cell in enumerate(cells)])
        else:
            remedy = "write a list of the values that it takes"
            raise Malformed(f"{shown(entries)} is not a list", where=at, remedy=remedy)
    size = math.prod(map(len, axes)) if axes else 0
    _check_size(size, where)
    bytes_count = size * (len(axes) + 1) + sum(
        size // len(cells) * sum(map(len, cells)) for cells in axes
    )
    if bytes_count > ITEMS_BYTES_MAX:
        raise Malformed(f"the items take {bytes_count:,} bytes", where=where, remedy=_SMALLER)
    items = tuple(b"{" + b",".join(cells) + b"}" for cells in itertools.product(*axes))
    return FanOut(items, size, frozenset(value), bytes_count)


_SMALLER = f"more than {ITEMS_BYTES_MAX:,} bytes belong in a file: go over its name or a number"


def _check_size(size: int, where: str) -> None:
    if not size:
        raise Malformed("there is nothing to go over", where=where, remedy=_REMEDY)
    if size > TASKS_PER_JOB_MAX:
        raise Malformed(f"{size:,} tasks are more than {TASKS_PER_JOB_MAX:,}", where=where)
