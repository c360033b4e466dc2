"""
Fifty of each main kind of trouble, and some of each other, for real processes: no law is broken.

The negative controls break one law each, in a server, in workers or in what they started, and see it found.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import anyio
import psutil
import pytest

from orchestra.cli.entry import carry_out
from orchestra.testing.chaos import scarcity, troubles
from orchestra.testing.chaos.campaign import (
    KINDS,
    LASTING_MS,
    Episode,
    Kind,
    Strike,
    put_through,
)
from orchestra.testing.chaos.farm import Farm, Plan
from orchestra.testing.chaos.proxy import Mode
from orchestra.testing.chaos.tally import Tally
from orchestra.testing.chaos.troubles import ELSEWHERE, GONE, WORK_AFTER_SERVER, cut_off
from tests.tidy import ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)

# Two farms at a time where both mostly wait for leases or for what they froze. Those whose server has 2 s to return are alone.
MAIN = (("server-kill",), ("freeze", "cut"), ("worker-kill",))
RARE = (("server-freeze", "disk"), ("descriptors", "clock"), ("memory",), ("calendar",), ("drain",))
LEASE_MS = 2_000


def proved(capsys: pytest.CaptureFixture[str], kinds: Sequence[str], rounds: int) -> dict[str, str]:
    words = ["--rounds", str(rounds), "--lease", "2s", "--together", str(len(kinds)), "--json"]
    code = carry_out(["prove", "chaos", "--only", ",".join(kinds), *words])
    out, err = capsys.readouterr()
    assert code == 0, err
    return dict(map(tuple, json.loads(out)["figures"]))


def struck(figures: dict[str, str], kind: str) -> int:
    (count,) = [figures[row] for row in figures if row.startswith(f"{kind}: ") and row[-1] == "."]
    return int(count)


def test_every_kind_is_played() -> None:
    assert sorted(kind for kinds in (*MAIN, *RARE) for kind in kinds) == sorted(KINDS)
    assert {kind for kinds in MAIN for kind in kinds} == {
        kind for kind, each in KINDS.items() if not each.rare
    }


@pytest.mark.parametrize("kinds", MAIN, ids=" and ".join)
def test_fifty_of_each_main_kind(
    kinds: Sequence[str], capsys: pytest.CaptureFixture[str], told: Callable[[str], None]
) -> None:
    figures = proved(capsys, kinds, 50)
    for kind in kinds:
        assert struck(figures, kind) >= 50
    for what in (WORK_AFTER_SERVER, ELSEWHERE, GONE):
        for row in figures:
            if row.endswith(what):
                told(f"{row}: {figures[row]}")


@pytest.mark.parametrize("kinds", RARE, ids=" and ".join)
def test_some_of_each_rare_kind(kinds: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    figures = proved(capsys, kinds, 10)
    for kind in kinds:
        assert struck(figures, kind) >= 2


def found(
    strike: Strike, troubles: int = 1, *, server: str = "", worker: str = "", **fields: Any
) -> list[str]:
    """What is found to be broken when troubles strike a small farm, with a law broken in it."""
    words: dict[str, Any] = {
        "workers": 3,
        "clients": 1,
        "open": 8,
        "lease_ms": LEASE_MS,
        "patience_s": 10,
    } | fields
    if server:
        words["server"] = (sys.executable, "-m", "tests.system.server", server)
    if worker:
        words["worker"] = (sys.executable, "-m", "tests.system.worker", worker)
    kind = Kind(strike=strike)
    episode = Episode("control", 1, troubles)
    tally, folder = anyio.run(put_through, episode, kind, Plan(**words))
    shutil.rmtree(folder)
    assert tally.struck > 0, tally.broken
    return tally.broken


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``tests.system.server`` is found."""
    monkeypatch.chdir(ROOT)


def test_a_server_that_answers_before_it_commits_is_found() -> None:
    broken = found(troubles.server_kill, server="reply after commit")
    # What it takes back is a job that was accepted, or an end that was told: which of them depends on when it is killed.
    assert any("is lost" in each or "has 0 recorded ends" in each for each in broken), broken


def test_workers_that_are_slow_to_return_are_found() -> None:
    broken = found(troubles.server_kill, 3, worker="come back at once")
    assert any(each.startswith(WORK_AFTER_SERVER) for each in broken), broken


def test_a_server_that_has_everything_run_anew_is_found() -> None:
    broken = found(troubles.server_kill, server="adopt what runs", lease_ms=LASTING_MS)
    assert any("were made anew, 0 were at risk" in each for each in broken), broken


async def nothing_is_scarce(farm: Farm, rng: Random, tally: Tally) -> None:
    await scarcity.disk(farm, rng, tally)
    await scarcity.descriptors(farm, rng, tally)


def test_a_full_disk_and_few_descriptors_that_nobody_notices_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scarcity, "fill", lambda _: None)
    monkeypatch.setattr(scarcity, "_limit", lambda _: None)
    monkeypatch.setattr(scarcity, "FULL_S", 0.5)
    monkeypatch.setattr(scarcity, "DESCRIPTORS", 1_024)
    monkeypatch.setattr(scarcity, "ACCEPTED_S", 10.0)
    broken = found(nothing_is_scarce)
    assert "the disk was full, and nothing was refused for it" in broken
    assert "100 connections were accepted with 1024 descriptors" in broken


async def silent_while_it_works(farm: Farm, _: Random, tally: Tally) -> None:
    """Nothing comes from a worker that has just begun a task, for longer than it lasts."""
    since = farm.journal.mark()

    def begun() -> list[str]:
        return [run.folder for run in farm.journal.runs[since.runs :] if run.kind == "S"]

    await farm.until(lambda: bool(begun()))
    folder = begun()[-1]
    (door,) = [each.door for each in farm.workers if folder.startswith(f"{each.folder}/")]
    await cut_off(farm, tally, {door: Mode.ONE_WAY}, 3.5 * farm.plan.lease_ms / 1_000)


def test_workers_that_do_not_end_their_attempts_are_found() -> None:
    long = {"workers": 4, "open": 2, "long_s": 3 * LEASE_MS / 1_000, "long_part": 1}
    broken = found(silent_while_it_works, worker="patient", **long)
    assert any("came to its end after attempt" in each for each in broken), broken


async def killed_unguarded(farm: Farm, rng: Random, tally: Tally) -> None:
    """SIGKILL of workers, with the guardians of their programs asleep."""
    victims = troubles.chosen(farm, rng)
    guardians = [each for victim in victims for each in psutil.Process(victim.child.pid).children()]
    for guardian in guardians:
        guardian.suspend()
    farm.risk(victims)
    since_s = time.monotonic()
    for victim in victims:
        victim.child.kill()
    tally.struck += len(victims)
    await troubles.gone(victims, tally, since_s)
    for guardian in guardians:
        guardian.resume()


def test_processes_that_are_left_are_found() -> None:
    broken = found(killed_unguarded)
    assert any(each.startswith(GONE) for each in broken), broken
    assert any("is alive" in each for each in broken), broken


def test_a_server_that_takes_late_results_is_found() -> None:
    # Tasks that outlast a freeze: one that is over at the thaw has no late result for the attempt that runs in its place.
    long = {"long_s": 3.0, "long_part": 0.5, "patience_s": 40}
    broken = found(troubles.freeze, 5, server="fence late completions", worker="patient", **long)
    assert any("the result of task" in each for each in broken), broken


def test_a_server_that_goes_back_in_time_is_found() -> None:
    broken = found(
        scarcity.calendar, 4, server="never go back in time", faked=scarcity.fake_clock()
    )
    assert any("before entry" in each for each in broken), broken
