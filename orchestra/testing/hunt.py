"""Looking for an exhibit, or for what a removed rule lets happen: by schedules of the core, or by simulations of the whole."""

from __future__ import annotations

import re

import attrs

from orchestra.testing.museum import EXHIBITS, on_show
from orchestra.testing.removed_rules import AROUND, removed

IN_TIME = "its end in time"
"""Who notices in a simulation what no invariant names: all work has to end within an hour of its clock."""


@attrs.frozen(slots=True)
class Found:
    """
    By which seed an exhibit was found, and who noticed.

    Args:
        finder: An invariant such as ``I3``, the core's own tables, or the promise of the sample that its work ends in time.
        why: What it said.
    """

    seed: int
    finder: str
    why: str


def found(name: str, seeds: int) -> Found | None:
    """Let an exhibit in and look for it, by so many seeds from 1 on; None when they do not find it."""
    with on_show(name):
        return _around(1, seeds) if EXHIBITS[name].around else _inside(1, seeds)


def is_well(name: str, seed: int) -> bool:
    """Whether the seed finds nothing when the exhibit is not let in."""
    return (_around if EXHIBITS[name].around else _inside)(seed, 1) is None


def missed(rule: str, seeds: int) -> Found | None:
    """Take a rule out and look for that, by so many seeds from 1 on; None when nobody misses it."""
    with removed(rule):
        return _around(1, seeds) if rule in AROUND else _inside(1, seeds)


def is_kept(rule: str, seed: int) -> bool:
    """Whether the seed finds nothing when the rule is in its place."""
    return (_around if rule in AROUND else _inside)(seed, 1) is None


def _inside(first: int, seeds: int) -> Found | None:
    from orchestra.testing.schedules.campaign import chunk

    broken = chunk(first, seeds).broken
    return Found(broken[0].seed, broken[0].finder, broken[0].why) if broken else None


def _around(first: int, seeds: int) -> Found | None:
    from orchestra.testing.simulation.campaign import chunk

    broken = chunk(first, seeds).broken
    if not broken:
        return None
    named = re.search(r"\bI\d+\b", broken[0].why)
    return Found(broken[0].seed, named[0] if named else IN_TIME, broken[0].why)
