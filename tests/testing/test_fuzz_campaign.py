"""Hostile input by the million: pieces on several processes come to the same, and a ledger goes on where it was cut off."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from pathlib import Path

import pytest

from orchestra.testing import fuzz_campaign, fuzz_worlds
from orchestra.testing.fuzz import Counted
from orchestra.testing.fuzz_campaign import FuzzTally, campaign, feed_seeds, seeds_for
from orchestra.testing.seed_ledger import SeedLedger

pytestmark = pytest.mark.aside

NAMES = ("json", "values")


def test_inputs_are_shared_among_seeds() -> None:
    assert seeds_for(1) == (1, 1)
    assert seeds_for(5_000) == (1, 5_000)
    assert seeds_for(12_000) == (3, 4_000)
    assert seeds_for(10_000_000) == (2_000, 5_000)


def test_pieces_on_several_processes_come_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_campaign, "SEED_INPUTS_MAX", 100)
    (alone,) = deque(campaign(NAMES, 300, seed=7), maxlen=1)
    (shared,) = deque(campaign(NAMES, 300, seed=7, processes=2), maxlen=1)
    assert alone.counted == shared.counted
    assert {name: counted.inputs for name, counted in alone.counted.items()} == dict.fromkeys(
        NAMES, 300
    )
    assert 0 < alone.counted["json"].accepted < 300
    assert shared.cpu_s > 0
    assert shared.broken == ()


def test_a_campaign_that_is_cut_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz_campaign, "SEED_INPUTS_MAX", 50)
    path = tmp_path / "fuzz.jsonl"
    kept = SeedLedger(FuzzTally(), "fuzz", path)
    with closing(campaign(NAMES, 200, ledger=kept)) as begun:
        next(begun)
        next(begun)
    again = SeedLedger(FuzzTally(), "fuzz", path)
    assert again.total.counted["json"].inputs == 100
    fed: list[int] = []
    feed = feed_seeds

    def told(names: tuple[str, ...], inputs: int, first: int, count: int) -> FuzzTally:
        fed.append(first)
        return feed(names, inputs, first, count)

    monkeypatch.setattr(fuzz_campaign, "feed_seeds", told)
    (whole,) = deque(campaign(NAMES, 200, ledger=again), maxlen=1)
    assert fed == [3, 4]
    monkeypatch.undo()
    monkeypatch.setattr(fuzz_campaign, "SEED_INPUTS_MAX", 50)
    (alone,) = deque(campaign(NAMES, 200), maxlen=1)
    assert whole.counted == alone.counted


def test_what_breaks_ends_it_and_is_not_put_on_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: fuzz_worlds.Small, principal: str, acting: object = None) -> object:
        raise KeyError(principal)

    monkeypatch.setattr(fuzz_worlds.Small, "for_principal", crash)
    kept = SeedLedger(FuzzTally(), "fuzz", tmp_path / "fuzz.jsonl")
    (broken,) = campaign(("http",), 100, seed=5, ledger=kept)
    assert "again: python -m orchestra prove fuzz --surface http --inputs 100 --seed 5" in str(
        broken.broken
    )
    assert kept.total == FuzzTally()


def test_a_process_that_grows_from_seed_to_seed_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each piece alone stays within its bound."""
    monkeypatch.setattr(fuzz_campaign._Grown, "begun_bytes", 0)
    monkeypatch.setattr(fuzz_campaign, "GROWTH_BYTES_MAX", 1024)
    assert "memory grew by" in feed_seeds(("values",), 50, 1, 1).broken[0]


def test_counts_add_up_by_surface() -> None:
    one = FuzzTally({"a": Counted(2, 1)}, growth_bytes=5, cpu_s=1.0)
    two = FuzzTally({"a": Counted(3, 3), "b": Counted(1, 0)}, growth_bytes=4, cpu_s=0.5)
    added = one + two
    assert added.counted == {"a": Counted(5, 4), "b": Counted(1, 0)}
    assert (added.growth_bytes, added.cpu_s) == (5, 1.5)
