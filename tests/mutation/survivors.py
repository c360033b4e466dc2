"""The page of survivors: the changes of the core that nothing notices, each with the reason why that is no hole in the tests."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

import attrs

PAGE = Path(__file__).with_name("survivors.toml")


def listed(page: Path = PAGE) -> dict[str, str]:
    """
    Reason by id of the mutant. On the page a table is a reason, and its ``ids`` are the mutants that have it.

    Raises:
        ValueError: A mutant stands there twice, or a reason says nothing.
    """
    found: dict[str, str] = {}
    for name, told in tomllib.loads(page.read_text(encoding="utf-8")).items():
        reason = " ".join(told["reason"].split())
        if not reason:
            raise ValueError(f"{name} gives no reason")
        for id in told["ids"]:
            if id in found:
                raise ValueError(f"listed twice: {id}")
            found[id] = reason
    return found


@attrs.frozen(slots=True)
class Compared:
    """What survived and is not listed, and what is listed and does not survive any more or is not there any more."""

    unlisted: tuple[str, ...]
    outdated: tuple[str, ...]


def compared(
    survivors: Iterable[str], tried: Iterable[str], page: Mapping[str, str], *, all: bool
) -> Compared:
    """Hold survivors against the page. Only after a run of ``all`` mutants is what is not among the tried ones outdated."""
    alive, known = set(survivors), set(tried)
    gone = {id for id in page if id not in alive and (all or id in known)}
    return Compared(tuple(sorted(alive - set(page))), tuple(sorted(gone)))
