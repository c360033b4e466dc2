"""``prove sockets`` says what was broken: on the page, and by its exit code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestra.cli.entry import carry_out
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.hostile import campaign
from orchestra.testing.hostile.campaign import Besieged, Plan
from orchestra.testing.hostile.flood import Flooded
from orchestra.testing.hostile.slow import Slowed, Watched
from orchestra.testing.proof_page import read

KEPT = Slowed(200, Watched(0.1, 11.2, 0), 1_000, 0.010, 0.015, 0.5)
LATE = Slowed(200, Watched(0.1, 22.2, 0), 1_000, 0.010, 0.015, 0.5)
FLOODED = Flooded(5_000, 400, 4_600, 50, 0.01, 20.0)
TRICKLE = Flooded(500, 400, 100, 50, 0.01, 20.0)


@pytest.mark.parametrize(
    ("slowed", "flooded", "broken"),
    [
        (KEPT, FLOODED, ""),
        (LATE, FLOODED, "a slow socket was there for 22.2 s, the bound is 15 s"),
        (KEPT, TRICKLE, "that was no flood: 1.2 times as much was asked"),
    ],
)
def test_what_was_broken_is_written_and_answered(
    slowed: Slowed, flooded: Flooded, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judgements are the real ones; what they judge is made up, for the real siege takes minutes."""

    async def first(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
        found.slowed = slowed
        found.broken += slowed.broken()

    async def second(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
        found.flooded = flooded
        found.broken += flooded.broken()

    monkeypatch.setattr(campaign, "_bytes_and_slowness", first)
    monkeypatch.setattr(campaign, "_flood", second)
    page = tmp_path / "proof.md"
    assert carry_out(["prove", "sockets", "--write", str(page)]) == bool(broken)
    section = read(page)["sockets"]
    assert (f"Broken: {broken}" in section) == bool(broken)
    assert ("| promises that were broken | none |" in section) != bool(broken)
    assert "| 200 slow sockets, opened in 0.1 s | 0 were left; the longest was there" in section


def test_what_ends_a_part_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
        found.cases = 48
        raise ExceptionGroup("tasks", [ExceptionGroup("more", [FuzzBroken("it took everything")])])

    async def second(plan: Plan, found: Besieged, say: Callable[[str], None]) -> None:
        raise TimeoutError

    monkeypatch.setattr(campaign, "_bytes_and_slowness", first)
    monkeypatch.setattr(campaign, "_flood", second)
    page = tmp_path / "proof.md"
    assert carry_out(["prove", "sockets", "--write", str(page)]) == 1
    section = read(page)["sockets"]
    assert "Broken: it took everything." in section
    assert "second: something did not end in time" in section
