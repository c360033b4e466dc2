"""The graph of a job's stages: names resolved, circles refused, order found."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from orchestra.errors import Malformed
from orchestra.statemachine.commands import StageDraft


def resolve(drafts: Sequence[StageDraft]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """
    For each stage the indexes of the stages in its ``after`` and ``pairwise``.

    Raises:
        Malformed: A name is there twice, is unknown, or the graph has a circle (the message names it).
    """
    if len(drafts) == 1 and not drafts[0].after and not drafts[0].pairwise:
        return [((), ())]
    index: dict[str, int] = {}
    for number, draft in enumerate(drafts):
        if draft.name in index:
            raise Malformed(
                f"the name {draft.name!r} is there twice",
                where=f"stages[{number}].name",
                remedy="give each stage a name of its own",
            )
        index[draft.name] = number
    edges: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for number, draft in enumerate(drafts):
        after = _indexes(index, draft.after, f"stages[{number}].after")
        pairwise = _indexes(index, draft.pairwise, f"stages[{number}].pairwise")
        edges.append((after, pairwise))
    _refuse_circles(drafts, edges)
    return edges


def _indexes(index: dict[str, int], names: Sequence[str], where: str) -> tuple[int, ...]:
    for name in names:
        if name not in index:
            raise Malformed(
                f"there is no stage {name!r}",
                where=where,
                remedy=f"name one of: {', '.join(list(index)[:10])}",
            )
    return tuple(dict.fromkeys(index[name] for name in names))


def _refuse_circles(
    drafts: Sequence[StageDraft], edges: list[tuple[tuple[int, ...], tuple[int, ...]]]
) -> None:
    open_edges = [len(after) + len(pairwise) for after, pairwise in edges]
    dependents: dict[int, list[int]] = {}
    for number, (after, pairwise) in enumerate(edges):
        for upstream in (*after, *pairwise):
            dependents.setdefault(upstream, []).append(number)
    ready = deque(number for number, count in enumerate(open_edges) if count == 0)
    done = 0
    while ready:
        done += 1
        for number in dependents.get(ready.popleft(), ()):
            open_edges[number] -= 1
            if open_edges[number] == 0:
                ready.append(number)
    if done < len(drafts):
        circle = _circle(edges, next(n for n, count in enumerate(open_edges) if count))
        names = " -> ".join(drafts[number].name for number in circle)
        raise Malformed(
            f"the stages come after each other in a circle: {names}",
            where=f"stages[{circle[0]}].after",
            remedy="take one of these edges out",
        )


def _circle(edges: list[tuple[tuple[int, ...], tuple[int, ...]]], start: int) -> list[int]:
    # Walk upstream for as many steps as there are stages: by then the walk is inside a circle, if it follows only
    # stages that are still blocked; each of these has a blocked upstream stage.
    blocked = _blocked(edges)
    number = start
    for _ in range(len(edges)):
        number = next(n for n in (*edges[number][0], *edges[number][1]) if n in blocked)
    circle = [number]
    while True:
        number = next(n for n in (*edges[number][0], *edges[number][1]) if n in blocked)
        circle.append(number)
        if number == circle[0]:
            return circle[::-1]


def _blocked(edges: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> set[int]:
    blocked = set(range(len(edges)))
    while True:
        free = {n for n in blocked if not any(up in blocked for up in (*edges[n][0], *edges[n][1]))}
        if not free:
            return blocked
        blocked -= free
