"""A campaign over seeds is played in pieces: what its ledger has is not played again, and counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.testing.removed_rules import removed
from orchestra.testing.schedules import Tally as Schedules
from orchestra.testing.schedules import campaign
from orchestra.testing.seed_ledger import SeedLedger
from orchestra.testing.simulation.campaign import Broken
from orchestra.testing.simulation.campaign import Tally as Simulations

pytestmark = pytest.mark.aside


@attrs.frozen(slots=True)
class Counted:
    """What pieces of a sample come to."""

    seeds: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.seeds + other.seeds)


def opened(path: Path | None, commit: str = "0123abc", of: str = "sample") -> SeedLedger[Counted]:
    return SeedLedger(Counted(), of, path, commit)


def test_what_is_played_is_not_left_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "sample.jsonl"
    ledger = opened(path)
    assert ledger.left(10, 25, 10) == [(10, 10), (20, 10), (30, 5)]
    ledger.add(20, 10, Counted(10))
    ledger.add(10, 3, Counted(3))
    again = opened(path, "4567def")
    assert again.total == Counted(13)
    assert again.left(10, 25, 10) == [(13, 7), (30, 5)]
    again.add(13, 7, Counted(7))
    again.add(30, 5, Counted(5))
    assert opened(path).left(10, 25, 10) == []
    assert opened(path).commits == "0123abc (13), 4567def (12)"


def test_neighbours_of_one_commit_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sample.jsonl"
    ledger = opened(path)
    for first in (3, 1, 2, 5):
        ledger.add(first, 1, Counted(1))
    assert [json.loads(line)["first"] for line in path.read_text().splitlines()] == [1, 5]
    opened(path, "4567def").add(4, 1, Counted(1))
    assert len(path.read_text().splitlines()) == 3
    assert [each.name for each in tmp_path.iterdir()] == ["sample.jsonl"]


def test_what_reaches_beyond_is_not_counted_with_the_rest() -> None:
    ledger = opened(None)
    ledger.add(1, 10, Counted(10))
    for first, count in ((2, 20), (1, 9)):
        with pytest.raises(Malformed, match="it has the seeds 1 to 10"):
            ledger.left(first, count, 10)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"of": "other"}, "line 2 is none of this ledger: it is of 'other', not of 'sample'"),
        ({"count": 0}, "it is of no seed"),
        ({"first": 10}, "it has seeds that the line before has"),
        ({"first": "one"}, r"Expected `int`, got `str` - at `\$.first`"),
        ({"tally": {"seeds": "many"}}, r"Expected `int`, got `str` - at `\$.seeds`"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path: Path, line: dict[str, Any], told: str) -> None:
    path = tmp_path / "sample.jsonl"
    good = {"of": "sample", "first": 1, "count": 10, "commit": "", "tally": {"seeds": 10}}
    path.write_text(f"{json.dumps(good)}\n{json.dumps(good | {'first': 11} | line)}\n")
    with pytest.raises(Malformed, match=told) as raised:
        opened(path)
    assert raised.value.where == "--ledger"


def test_what_campaigns_count_is_kept_as_it_was(tmp_path: Path) -> None:
    rows = frozenset({("task", None, "create"), ("task", "queued", "lease")})
    schedules = Schedules(5, 1, 100, 20, 60_000, 0.25, rows)
    path = tmp_path / "core.jsonl"
    SeedLedger(Schedules(), "core", path).add(1, 5, schedules)
    assert SeedLedger(Schedules(), "core", path).total == schedules
    simulations = Simulations(5, 1, 9, 20, 800, 60_000, 0.25, 7, 2, 1, (Broken(3, "seed=3", "I9"),))
    path = tmp_path / "simulate.jsonl"
    SeedLedger(Simulations(), "simulate", path).add(1, 5, simulations)
    assert SeedLedger(Simulations(), "simulate", path).total == simulations


@pytest.mark.parametrize(
    ("name", "many"), [("core", "schedules"), ("simulate", "simulations")], ids=["core", "simulate"]
)
def test_a_command_goes_on_where_it_was(
    name: str, many: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "seeds.jsonl"
    words = ["--ledger", str(path), "--processes", "1", "--json"]

    def figures(number: int) -> dict[str, str]:
        assert carry_out(["prove", name, f"--{many}", str(number), *words]) == 0
        return dict(map(tuple, json.loads(capsys.readouterr().out)["figures"]))

    first, second = figures(1), figures(2)
    assert second[many].startswith("2, of which")
    assert int(second["commits"].replace(",", "")) > int(first["commits"].replace(",", ""))
    kept = path.read_bytes()
    assert figures(2) == second
    assert path.read_bytes() == kept, "nothing was played, whose seconds would be another number"
    assert carry_out(["prove", name, f"--{many}", "1", *words]) == 2
    assert "it has the seeds 1 to 2, which are not all asked for" in capsys.readouterr().err


def test_a_broken_chunk_is_not_kept_and_is_played_again() -> None:
    ledger = SeedLedger(Schedules(), "core")
    with removed("deaf_job"):
        *_, broken = campaign(3, ledger=ledger)
    assert broken.broken
    assert ledger.total == Schedules()
    *_, mended = campaign(3, ledger=ledger)
    assert (mended.schedules, mended.broken) == (3, ())
    assert ledger.total == mended


def test_a_ledger_where_there_is_no_folder_is_refused_before_anything_is_played(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "missing" / "core.jsonl")
    assert carry_out(["prove", "core", "--ledger", where]) == 2
    assert "there is no folder" in capsys.readouterr().err
