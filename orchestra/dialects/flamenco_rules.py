"""
What the operator says of workers by host name: their tags, and when they sleep.

Source: the sleep schedule and tags of Flamenco 3. There a schedule whose end lies before its start keeps nobody asleep; here it reaches
over midnight.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import cast

from orchestra.errors import Malformed
from orchestra.statemachine.values import value

DAYS = ("mo", "tu", "we", "th", "fr", "sa", "su")
DAY_MINUTES = 24 * 60
_TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


@value
class Sleep:
    """
    When workers are given nothing new; what they have they finish.

    Args:
        days: Days on which the sleep begins, counted from Monday as 0; empty for each day.
        start: Minute of the day at which it begins.
        end: Minute of the day at which it is over: of the following day when it is not after ``start``.
    """

    days: frozenset[int]
    start: int
    end: int

    def covers(self, weekday: int, minute: int) -> bool:
        """Whether it is time to sleep."""
        if self.start < self.end:
            return self._on(weekday) and self.start <= minute < self.end
        return (self._on(weekday) and minute >= self.start) or (
            self._on((weekday - 1) % len(DAYS)) and minute < self.end
        )

    def _on(self, weekday: int) -> bool:
        return not self.days or weekday in self.days


@value
class WorkerRule:
    """What holds for workers whose host name has a pattern such as ``render-*``."""

    pattern: str
    tags: tuple[str, ...] = ()
    sleep: Sleep | None = None
    push: bool = False


def labels_for(rules: tuple[WorkerRule, ...], hostname: str) -> tuple[str, ...]:
    """The labels that a worker gets from all rules for it; tasks ask for them as ``tag:NAME``."""
    tags = {tag for rule in rules if fnmatchcase(hostname, rule.pattern) for tag in rule.tags}
    return tuple(f"tag:{tag}" for tag in sorted(tags))


def sleeps_of(rules: tuple[WorkerRule, ...], hostname: str) -> tuple[Sleep, ...]:
    """When a worker sleeps, by all rules for it."""
    return tuple(rule.sleep for rule in rules if rule.sleep and fnmatchcase(hostname, rule.pattern))


def is_pushed_to(rules: tuple[WorkerRule, ...], hostname: str) -> bool:
    """Whether a worker is one of the push protocol, which is called."""
    return any(rule.push and fnmatchcase(hostname, rule.pattern) for rule in rules)


def read_rules(table: Mapping[str, object], where: str) -> tuple[WorkerRule, ...]:
    """From tables by pattern, with ``tags``, ``sleep`` (such as ``"mo tu 08:00-18:30"``) and ``push``. Raises `Malformed`."""
    return tuple(_rule(pattern, found, f"{where}.{pattern}") for pattern, found in table.items())


def _rule(pattern: str, found: object, where: str) -> WorkerRule:
    if not isinstance(found, Mapping):
        raise Malformed("it is a table", where=where)
    table = dict(cast("Mapping[str, object]", found))
    tags, sleep, push = table.pop("tags", []), table.pop("sleep", ""), table.pop("push", False)
    if table:
        raise Malformed("there is no such option", where=f"{where}.{min(table)}")
    if not isinstance(tags, list) or not isinstance(sleep, str) or not isinstance(push, bool):
        told = "tags are a list of texts, sleep is a text, push is true or false"
        raise Malformed(told, where=where)
    words: list[str] = []
    for tag in cast("list[object]", tags):
        if not isinstance(tag, str) or not tag or "," in tag:
            raise Malformed("each is a text without a comma", where=f"{where}.tags")
        words.append(tag)
    return WorkerRule(pattern, tuple(words), read_sleep(sleep, f"{where}.sleep"), push)


def read_sleep(text: str, where: str) -> Sleep | None:
    """A schedule such as ``sa su 00:00-24:00``; None for an empty text. Raises `Malformed`."""
    if not text:
        return None
    *days, span = text.split()
    start, dash, end = span.partition("-")
    if not dash or any(day not in DAYS for day in days):
        known = " ".join(DAYS)
        raise Malformed(f"it is days ({known}) and hours, as in 'mo tu 08:00-18:30'", where=where)
    first, last = _minute(start, where), _minute(end, where)
    return Sleep(frozenset(DAYS.index(day) for day in days), first, last)


def _minute(text: str, where: str) -> int:
    if text == "24:00":
        return DAY_MINUTES
    found = _TIME.fullmatch(text)
    if found is None:
        raise Malformed("hours are such as 08:00", where=where)
    return int(found[1]) * 60 + int(found[2])
