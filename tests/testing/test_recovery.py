"""A second trouble while the first is mended, and files beside the store: nothing is lost, and ways to lose are noticed."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import anyio
import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import Unavailable
from orchestra.storage.shelf import FolderShelf
from orchestra.testing.power_loss import campaign
from orchestra.testing.power_loss.fault_loop import Faulted, fail_once
from orchestra.testing.power_loss.files import WAYS_TO_LOSE, fail_files, keep_on_shelf, try_files
from orchestra.testing.power_loss.medium import FileSystem
from orchestra.testing.power_loss.recorder import Fails, Fault, Pair, RecordingDisk
from orchestra.testing.power_loss.recovery import cut_again, fail_twice, unflushed
from orchestra.testing.power_loss.trial import Tally

pytestmark = pytest.mark.aside

SEED = 1


@pytest.mark.parametrize(
    ("name", "stride"), [("killed", 120), ("migration", 17), ("first_start", 25), ("backups", 90)]
)
def test_a_cut_while_the_store_starts_after_a_cut_loses_nothing(name: str, stride: int) -> None:
    tally = anyio.run(
        partial(cut_again, name, SEED, stride=stride, subsets=0, systems=(FileSystem.STRICT,))
    )
    assert [str(each) for each in tally.broken] == []
    assert tally.trials > 1
    assert tally.images > tally.operations


def test_no_scenario_is_too_short_for_a_stride() -> None:
    short = partial(cut_again, "return_to_old", SEED, stride=1_000, subsets=0)
    tally = anyio.run(partial(short, systems=(FileSystem.STRICT,)))
    assert [str(each) for each in tally.broken] == []
    assert tally.trials == 1


def test_a_start_that_flushes_nothing_is_noticed() -> None:
    assert unflushed(SEED).broken


def test_a_second_operation_that_fails_while_a_first_is_mended_loses_nothing() -> None:
    kinds = (Fails.SYNC, Fails.WRITE)
    faulted = anyio.run(partial(fail_twice, "submits", SEED, kinds, stride=16))
    assert faulted.broken == ()
    assert faulted.faults > faulted.runs, "the second was met too"


def test_both_of_a_pair_are_met_in_turn() -> None:
    pair = Pair(Fault(Fails.SYNC, 2), Fault(Fails.WRITE, 1))
    met = [
        pair.meets(kind) for kind in (Fails.WRITE, Fails.SYNC, Fails.SYNC, Fails.SYNC, Fails.WRITE)
    ]
    assert met == [False, False, True, False, True]
    assert str(pair) == "sync 2 once, then write 1 once"
    faulted = anyio.run(
        partial(fail_once, "submits", SEED, Pair(Fault(Fails.SYNC, 4), Fault(Fails.READ, 1)))
    )
    assert faulted.broken == ()
    assert faulted.faults == 2


def test_files_that_are_kept_are_there_after_a_cut() -> None:
    tally = try_files(SEED)
    assert [str(each) for each in tally.broken] == []
    assert tally.images > 10 * tally.operations
    failed = fail_files(SEED)
    assert [str(each) for each in failed.broken] == []
    assert failed.trials > 10


@pytest.mark.parametrize("name", WAYS_TO_LOSE)
def test_ways_to_lose_a_file_are_noticed(name: str) -> None:
    tally = try_files(SEED, WAYS_TO_LOSE[name])
    assert tally.broken[0].why.startswith(("lost", "torn"))


def test_a_file_that_can_not_be_kept_leaves_the_former_one_and_no_draft(tmp_path: Path) -> None:
    for fails in (Fails.NAMES, Fails.WRITE, Fails.FULL, Fails.SYNC):
        folder = tmp_path / fails.value
        folder.mkdir()
        with RecordingDisk(folder) as disk:
            keep_on_shelf(disk, "log.txt", b"before")
            disk.fault = Fault(fails, 1)
            with pytest.raises(Unavailable, match=r"log\.txt can not be kept"):
                keep_on_shelf(disk, "log.txt", b"after")
        assert {each.name: each.read_bytes() for each in folder.iterdir()} == {"log.txt": b"before"}


def test_a_shelf_makes_the_folders_it_lies_in(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "one" / "two")
    shelf.save("log.txt", b"text")
    assert shelf.read("log.txt") == b"text"


def test_the_command_tells_what_was_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        campaign, "cuts_again", partial(campaign.cuts_again, names=("first_start",))
    )
    monkeypatch.setattr(campaign, "pairs", partial(campaign.pairs, names=("first_start",)))
    monkeypatch.setattr(campaign, "FILE_SEEDS", 1)
    assert carry_out(["prove", "recovery", "--stride", "90", "--processes", "1", "--json"]) == 0
    evidence = json.loads(capsys.readouterr().out)
    figures = dict(evidence["figures"])
    assert figures["images that are damaged, or do not go on"] == "0"
    assert sum("noticed: " in figure for figure in figures.values()) == 4
    assert figures["operations of a kind that failed first"] == "one in 90"


def test_what_was_not_tried_is_told_and_answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of all else: a scenario in which nothing happened."""
    monkeypatch.setattr(campaign, "cuts_again", lambda *_: {"first_start": Tally()})
    monkeypatch.setattr(campaign, "pairs", lambda *_: {("sync", "write"): Faulted()})
    monkeypatch.setattr(campaign, "FILE_SEEDS", 1)
    assert carry_out(["prove", "recovery", "--processes", "1", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["result"] == "nothing was tried: first_start"
    assert "nothing was tried: sync, then write" in told.err
