"""The power is cut after every operation of the real store, and operations fail: nothing is lost, and ways to lose are noticed."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from unittest import mock

import anyio
import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import StoreFailed
from orchestra.ports import Store
from orchestra.storage import sqlite_files
from orchestra.storage.disk import Disk
from orchestra.testing.power_loss import campaign
from orchestra.testing.power_loss.controls import CONTROLS
from orchestra.testing.power_loss.fault_loop import Faulted, fail_once, fault_loop
from orchestra.testing.power_loss.medium import FileSystem, Medium, Way
from orchestra.testing.power_loss.operations import Kind, Operation
from orchestra.testing.power_loss.recorder import Fails, Fault
from orchestra.testing.power_loss.scenarios import SCENARIOS
from orchestra.testing.power_loss.trial import (
    Recording,
    Tally,
    open_sqlite,
    record,
    try_scenario,
    workshop,
)

pytestmark = pytest.mark.aside

SEED = 1


def tried(name: str, *systems: FileSystem) -> Tally:
    """A scenario, cut after each operation in the four fixed ways."""
    return anyio.run(
        partial(try_scenario, name, SEED, subsets=0, systems=systems or tuple(FileSystem))
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_cut_loses_or_damages_anything(name: str) -> None:
    tally = tried(name, FileSystem.STRICT)
    assert [str(each) for each in tally.broken] == []
    assert tally.operations < tally.images
    assert 0 < tally.distinct < tally.images


def test_the_log_is_given_its_length_in_the_scenario_of_that_name() -> None:
    with workshop() as folder:
        recorded = anyio.run(partial(record, SCENARIOS["lengthened"], SEED, folder))
    length = 32 + 16 * (24 + 4_096)
    longer = [
        each
        for each in recorded.tape
        if each.kind is Kind.WRITE
        and each.content.count(0) == len(each.content)
        and each.offset + len(each.content) == length
    ]
    assert longer


def test_no_cut_loses_anything_where_names_change_in_order() -> None:
    assert tried("first_start", FileSystem.ORDERED).broken == ()
    assert tried("return_to_old", FileSystem.ORDERED).broken == ()


def test_scenarios_run_on_trio_too() -> None:
    tally = anyio.run(partial(try_scenario, "first_start", SEED, subsets=0), backend="trio")
    assert tally.broken == ()


def recorded(name: str) -> Recording:
    """What a scenario does to the disk."""
    with workshop() as folder:
        return anyio.run(record, SCENARIOS[name], SEED, folder)


def test_scenarios_do_what_they_say() -> None:
    tape = recorded("checkpoints").tape
    moved = [each for each in tape if each.kind is Kind.WRITE and each.name == "store.db"]
    assert len(moved) > len([each for each in tape if each.kind is Kind.TOLD]) / 2
    assert Kind.SYNC_FAILED in {each.kind for each in recorded("failed_flush").tape}
    kinds = {(each.kind, each.name) for each in recorded("migration").tape}
    assert (Kind.RENAME, "store.db.before-v3.part") in kinds
    assert {name for kind, name in kinds if kind is Kind.NEEDED} == {"store.db.before-v3"}


@pytest.mark.parametrize("name", CONTROLS)
def test_ways_to_lose_are_noticed(name: str) -> None:
    tally = anyio.run(CONTROLS[name], SEED, 1)
    assert tally.lost + tally.corrupt > 0
    assert tally.broken[0].why.startswith(("lost", "corrupt"))


@pytest.mark.parametrize(
    ("name", "fails", "stride"),
    [
        ("first_start", Fails.SYNC, 1),
        ("first_start", Fails.NAMES, 2),
        ("first_start", Fails.WRITE, 9),
        ("first_start", Fails.FULL, 9),
        ("first_start", Fails.READ, 7),
        ("migration", Fails.SYNC, 2),
        ("return_to_old", Fails.NAMES, 2),
    ],
)
def test_an_operation_that_fails_is_a_clear_error_and_loses_nothing(
    name: str, fails: Fails, stride: int
) -> None:
    faulted = anyio.run(partial(fault_loop, name, SEED, fails, stride=stride))
    assert faulted.broken == ()
    assert faulted.faults >= faulted.runs > 3


def found(fault: Fault, **ways: object) -> Faulted:
    """What one fault does to a migration."""
    return anyio.run(partial(fail_once, "migration", SEED, fault, **ways))


def test_a_log_that_is_not_written_again_is_noticed() -> None:
    """Without the store's care for a log whose flush failed, some failing flush damages the file."""
    with mock.patch.object(sqlite_files, "keep_log"):
        broken = [found(Fault(Fails.SYNC, nth, forever=True)).broken for nth in range(1, 12)]
    assert any("corrupt" in each or "lost" in each for found in broken for each in found)


def test_an_error_that_is_none_of_ours_is_noticed() -> None:
    async def open_store(path: str, disk: Disk) -> Store:
        try:
            return await open_sqlite(path, disk)
        except StoreFailed as error:
            raise OSError("something else") from error

    faulted = found(Fault(Fails.NAMES, 1, forever=True), open_store=open_store)
    assert "no clear error: OSError: something else" in faulted.broken[0]


def test_a_server_that_does_not_come_back_is_noticed() -> None:
    failed: list[StoreFailed] = []

    async def open_store(path: str, disk: Disk) -> Store:
        if failed:
            raise failed[0]
        try:
            return await open_sqlite(path, disk)
        except StoreFailed as error:
            failed.append(error)
            raise

    faulted = found(Fault(Fails.SYNC, 5), open_store=open_store)
    assert any("the server does not start" in each for each in faulted.broken)
    assert any("not served again" in each for each in faulted.broken)


def write(file: int, offset: int, content: bytes) -> Operation:
    return Operation(Kind.WRITE, file, "a", offset=offset, content=content)


SYNC = Operation(Kind.SYNC, 1, "a")
SYNC_NAMES = Operation(Kind.SYNC_NAMES)
MAKE = Operation(Kind.MAKE, 1, "a")


def images(medium: Medium, way: Way, count: int = 60) -> set[tuple[tuple[str, bytes], ...]]:
    """What chance makes of a cut."""
    rng = Random(SEED)
    return {tuple(medium.image(way, rng).items()) for _ in range(count)}


def test_a_new_file_is_there_when_its_directory_was_flushed() -> None:
    strict, ordered = Medium(FileSystem.STRICT, {}), Medium(FileSystem.ORDERED, {})
    for medium in (strict, ordered):
        for operation in (MAKE, write(1, 0, b"text"), SYNC):
            medium.apply(operation)
    assert images(strict, Way.SYNCED) == {()}
    assert images(strict, Way.SUBSET) == {(), (("a", b"text"),)}
    assert images(ordered, Way.SYNCED) == {(("a", b"text"),)}
    assert not strict.is_settled()
    strict.apply(SYNC_NAMES)
    assert strict.is_settled()
    assert images(strict, Way.SUBSET) == {(("a", b"text"),)}


def test_writes_that_were_not_flushed_survive_in_any_combination() -> None:
    medium = Medium(FileSystem.STRICT, {"a": b"...."})
    for operation in (write(1, 0, b"x"), write(1, 1, b"y")):
        medium.apply(operation)
    for way in (Way.SUBSET, Way.SHUFFLED):
        found = {dict(image)["a"] for image in images(medium, way)}
        assert found == {b"....", b"x...", b".y..", b"xy.."}
    assert images(medium, Way.SYNCED) == {(("a", b"...."),)}
    assert images(medium, Way.ALL) == {(("a", b"xy.."),)}


def test_a_torn_write_keeps_some_sectors() -> None:
    medium = Medium(FileSystem.ORDERED, {"a": b"." * 1024})
    medium.apply(write(1, 0, b"x" * 1024))
    found = {dict(image)["a"] for image in images(medium, Way.TORN)}
    assert found == {old * 512 + new * 512 for old in (b".", b"x") for new in (b".", b"x")}


def test_what_a_failed_flush_left_behind_no_later_one_makes_good() -> None:
    medium = Medium(FileSystem.STRICT, {"a": b"...."})
    medium.apply(write(1, 0, b"x"))
    medium.apply(Operation(Kind.SYNC_FAILED, 1, "a"))
    medium.apply(write(1, 1, b"y"))
    medium.apply(SYNC)
    assert images(medium, Way.SYNCED) == {(("a", b".y.."),)}
    assert not medium.is_settled()
    medium.apply(write(1, 0, b"x"))
    medium.apply(SYNC)
    assert {dict(image)["a"] for image in images(medium, Way.SUBSET)} == {b"xy.."}


def test_names_change_in_order_or_in_any() -> None:
    steps = (
        Operation(Kind.RENAME, 1, "a", "b"),
        Operation(Kind.REMOVE, 2, "c"),
    )
    strict, ordered = (Medium(system, {"a": b"1", "c": b"2"}) for system in FileSystem)
    for medium in (strict, ordered):
        for operation in steps:
            medium.apply(operation)
    names = {tuple(name for name, _ in image) for image in images(strict, Way.SUBSET)}
    assert names == {("a", "c"), ("b", "c"), ("a",), ("b",)}
    names = {tuple(name for name, _ in image) for image in images(ordered, Way.SUBSET)}
    assert names == {("a", "c"), ("b", "c"), ("b",)}


def test_the_command_tells_what_was_tried(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        campaign, "CONTROLS", {"reply_before_commit": CONTROLS["reply_before_commit"]}
    )
    monkeypatch.setattr(campaign, "cuts", partial(campaign.cuts, names=("first_start",)))
    monkeypatch.setattr(campaign, "faults", partial(campaign.faults, names=("first_start",)))
    words = "prove power-loss --images 1 --stride 30 --processes 1 --json"
    assert carry_out(words.split()) == 0
    figures = dict(json.loads(capsys.readouterr().out)["figures"])
    assert figures["images that lack something acknowledged"] == "0"
    assert figures["scenarios recorded"] == "1"
    assert sum("noticed: " in figure for figure in figures.values()) == 1
    assert figures["without the flushes of the directory that SQLite makes of its own accord"]
