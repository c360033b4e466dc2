"""A campaign that is cut off goes on where it was: what its ledger has is not played again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import attrs
import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.testing.chaos import campaign
from orchestra.testing.chaos.campaign import Episode, by_kind, play_all
from orchestra.testing.chaos.farm import Plan
from orchestra.testing.chaos.ledger import Entry, Ledger, played_on
from orchestra.testing.chaos.tally import Tally

TALLY = Tally(50, {"until the return": [0.5, 1.25]}, Counter({"jobs": 7}), Counter({"law.": 0}))
ENTRY = Entry("cut", 7, 50, 2_000, "0123abc", 61.5, TALLY)
CUTS = [Episode("cut", seed, 50) for seed in (7, 8, 9)]


async def played(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, broken: int = 0) -> list[Entry]:
    """What comes of the three cuts when a farm is nothing but its seed; that of the seed ``broken`` breaks a law."""

    async def play(episode: Episode, plan: Plan) -> Tally:
        del plan
        tally = Tally(episode.troubles, {}, Counter({"seed": episode.seed}))
        tally.broken += ["one"] if episode.seed == broken else []
        return tally

    monkeypatch.setattr(campaign, "play", play)
    told: list[Entry] = []
    plan = Plan(lease_ms=2_000)
    await play_all(CUTS, plan, 2, told=told.append, ledger=ledger, commit="4567def")
    return told


@pytest.mark.anyio
async def test_what_is_on_the_ledger_is_not_played_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chaos.jsonl"
    Ledger(path).add(ENTRY)
    first = await played(monkeypatch, Ledger(path), broken=9)
    assert sorted(entry.seed for entry in first) == [8, 9]
    second = await played(monkeypatch, Ledger(path))
    assert [entry.seed for entry in second] == [9], "one with a broken law is played again"
    assert await played(monkeypatch, Ledger(path)) == []
    assert Ledger(path).find("cut", 7, 50, 2_000) == ENTRY
    for other in (("cut", 7, 49, 2_000), ("cut", 7, 50, 6_000), ("drain", 7, 50, 2_000)):
        assert Ledger(path).find(*other) is None


def test_entries_add_up_by_kind_and_tell_their_commits() -> None:
    drain = attrs.evolve(ENTRY, kind="drain", commit="")
    tallies = by_kind([drain, ENTRY, ENTRY])
    assert list(tallies) == ["cut", "drain"]
    assert (tallies["cut"].struck, tallies["cut"].counts["jobs"]) == (100, 14)
    assert played_on([ENTRY, drain, ENTRY]) == "0123abc (2), unknown (1)"


def test_seconds_are_kept_to_the_millisecond(tmp_path: Path) -> None:
    path = tmp_path / "chaos.jsonl"
    tally = Tally(1, {"until the return": [0.12345678]})
    Ledger(path).add(attrs.evolve(ENTRY, took_s=1.23456, tally=tally))
    found = Ledger(path).find("cut", 7, 50, 2_000)
    assert found is not None
    assert (found.took_s, found.tally.recoveries_s) == (1.235, {"until the return": [0.123]})


def test_a_torn_last_line_is_taken_out_and_any_other_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chaos.jsonl"
    Ledger(path).add(ENTRY)
    with path.open("a") as file:
        file.write('{"kind": "cut", "seed"')
    ledger = Ledger(path)
    ledger.add(attrs.evolve(ENTRY, seed=8))
    assert [Ledger(path).find("cut", seed, 50, 2_000) is None for seed in (7, 8)] == [False, False]
    path.write_text('{"kind": "cut"}\n')
    with pytest.raises(Malformed, match="line 1 is no entry of a ledger"):
        Ledger(path)


def test_a_ledger_where_there_is_no_folder_is_refused_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "missing" / "chaos.jsonl")
    assert carry_out(["prove", "chaos", "--ledger", where]) == 2
    told = capsys.readouterr().err
    assert "there is no folder" in told
    assert "(--ledger)" in told
