"""The whole system with its real store, simulated: cuts of the power and failing operations below it, and ways to lose that are noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from unittest import mock

import anyio
import pytest

import orchestra
from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.ports import Store
from orchestra.storage import codec, sqlite_files
from orchestra.storage.disk import Disk
from orchestra.testing import faults, simulate
from orchestra.testing.power_loss.controls import HastyStore
from orchestra.testing.power_loss.trial import open_sqlite
from orchestra.testing.simulation import sqlite_disk
from orchestra.testing.simulation.campaign import drawn_shape
from orchestra.testing.simulation.plan import Plan, draw
from orchestra.testing.simulation.sample import Scenario
from orchestra.testing.simulation.simulation import Failed, Simulated, Simulation, play
from orchestra.testing.simulation.truth import Violated

pytestmark = pytest.mark.aside

app = orchestra.App()


@app.task(retries=3)
async def render(frame: int) -> str:
    await anyio.sleep(3)
    return f"{frame:04}.png"


DISKS = faults.CRASHES | faults.DISK


@simulate(app, workers=2, faults=DISKS, examples=8, store="sqlite")
async def test_every_frame_once_whatever_the_disk_does(sim: Simulation) -> None:
    job = await sim.submit(render.map(range(6)), key="film")
    again = await sim.submit(render.map(range(6)), key="film")
    assert again.id == job.id
    await sim.until(job.done, within="2d")
    assert sorted(await job.results()) == [f"{i:04}.png" for i in range(6)]


def played(seed: int, kinds: frozenset[str] = DISKS) -> Simulated:
    """The sample over the real store."""
    shape = drawn_shape(seed)
    return play(Scenario(shape.tasks), shape, draw(seed, kinds, shape.names, "sqlite"))


def test_the_power_is_cut_and_operations_fail_at_every_kind_of_place() -> None:
    shape = drawn_shape(44)
    done = play(
        Scenario(shape.tasks),
        shape,
        Plan.read(
            "seed=44 store=sqlite crash_at_operation@400:server:10:0 crash_at_operation@3000:server:10:5"
            " full_disk@7000:server:4000:0 kill@7200:server:10:0 fail_operation@12000:server:10:2"
        ),
    )
    said = [line.what for line in done.lines if line.who == "server"]
    assert said.count("loses its power") >= 2
    assert "does not start: its disk fails" in said
    assert done.wear.cuts >= 3, "the last one is at the end of each simulation"
    assert done.wear.failed > 0
    assert done.wear.operations > done.commits


def lost() -> Iterator[str]:
    """What seeds say that something was lost, one after the other."""
    for seed in range(1, 12):
        try:
            played(seed, faults.CRASHES)
        except Failed as failed:
            yield str(failed.cause)


async def hasty(path: str, disk: Disk) -> Store:
    """A store that acknowledges first."""
    return HastyStore(await open_sqlite(path, disk))


def test_what_is_read_after_flushes_failed_again_and_again_is_on_the_disk() -> None:
    """Opening the file anew fails as well; closing it for the next try must not lose the log that is still to be flushed."""
    shape = drawn_shape(9218)
    plan = "seed=9218 latency=1 store=sqlite skew_clock@449:w1:4000:5 fail_commit@3972:server:300:7"
    play(Scenario(shape.tasks), shape, Plan.read(plan))


@pytest.mark.parametrize(
    "way_to_lose",
    [
        mock.patch.dict(sqlite_files.SYNCHRONOUS, full="NORMAL"),
        mock.patch.dict(sqlite_files.SYNCHRONOUS, full="OFF"),
        mock.patch.object(sqlite_disk, "open_sqlite", hasty),
    ],
    ids=["synchronous=NORMAL", "synchronous=OFF", "reply before commit"],
)
def test_ways_to_lose_are_noticed(way_to_lose: AbstractContextManager[object]) -> None:
    with way_to_lose:
        assert "was acknowledged, and the disk ends at" in next(lost())


def test_what_a_disk_holds_beside_what_was_asked_of_it_is_noticed() -> None:
    async def other(path: str, disk: Disk) -> Store:
        store = await open_sqlite(path, disk)
        await _damage(path)
        return store

    with mock.patch.object(sqlite_disk, "open_sqlite", other):
        assert any("holds something else" in each for each in lost())


async def _damage(path: str) -> None:
    with sqlite_files.contextlib.closing(sqlite_files.connect(path)) as connection:
        connection.execute("UPDATE meta SET at_ms = at_ms + 1 WHERE number > 0")


async def damaged(sim: Simulation) -> None:
    """Two jobs, of which one may lose a row to a flipped bit; the other goes on."""
    jobs = [await sim.submit(render.map(range(6)), key=key) for key in ("one", "other")]
    await anyio.sleep(12)
    aside = sim.cluster.truth.aside
    served = [job for job in jobs if job.id not in aside]
    assert served, "only one was damaged"
    for job in served:
        await sim.until(job.done, within="2d")
        if job.id not in sim.cluster.truth.damaged:
            assert len(await job.results()) == 6


def flipped(at_ms: int) -> str:
    return f"seed=5 latency=1 store=sqlite flip_bit@{at_ms}:server:300:0"


def test_a_job_with_a_damaged_row_is_set_aside_and_the_others_are_served() -> None:
    said: list[set[str]] = []

    async def play_it(sim: Simulation) -> None:
        await damaged(sim)
        said.append(sim.cluster.truth.damaged | sim.cluster.truth.aside)

    for at_ms in (2_000, 2_500, 3_000, 4_000):
        simulate(app, workers=2, plan=flipped(at_ms))(play_it)()
    assert all(len(each) == 1 for each in said)


def test_a_damaged_row_that_is_taken_for_a_good_one_is_noticed() -> None:
    with (
        mock.patch.object(codec.zlib, "crc32", return_value=0),
        pytest.raises(Violated, match="a damaged row was taken for a good one"),
    ):
        simulate(app, workers=2, plan=flipped(3_000))(damaged)()


def test_a_plan_names_its_store() -> None:
    plan = Plan.read("seed=3 latency=10 store=sqlite crash_at_operation@9:server:10:2")
    assert plan.store == "sqlite"
    assert Plan.read(str(plan)) == plan
    with pytest.raises(Malformed, match="is no part of a plan"):
        Plan.read("seed=3 store=paper")


def test_the_command_has_a_section_of_its_own_for_the_real_store(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "prove simulate --simulations 3 --seed 25 --store sqlite --processes 1 --json"
    assert carry_out(words.split()) == 0
    evidence = json.loads(capsys.readouterr().out)
    assert evidence["name"] == "simulate-sqlite"
    figures = dict(evidence["figures"])
    assert figures["simulations"] == "3, of which 1 were played twice"
    assert figures["cuts of a server's power, each followed by a look at everything acknowledged"]
