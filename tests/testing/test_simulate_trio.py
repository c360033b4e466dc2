"""The whole system, simulated on trio: the same story at every run, and what is broken is found there too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from random import Random
from unittest import mock

import anyio
import anyio.lowlevel
import psutil
import pytest

import orchestra
from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.storage import sqlite_files
from orchestra.testing import faults, simulate
from orchestra.testing.removed_rules import removed
from orchestra.testing.simulation import cluster, trio_world
from orchestra.testing.simulation.campaign import chunk, play_seed
from orchestra.testing.simulation.network import Network
from orchestra.testing.simulation.plan import BACKENDS, Plan
from orchestra.testing.simulation.simulation import NotInTime, Simulation
from orchestra.testing.simulation.trio_world import TrioWorld, seeded_trio
from orchestra.testing.simulation.truth import Violated
from orchestra.testing.simulation.world import Stuck

pytestmark = pytest.mark.aside

app = orchestra.App()


@app.task(retries=3)
async def render(frame: int) -> str:
    await anyio.sleep(3)
    return f"{frame:04}.png"


@simulate(app, workers=3, faults=faults.ALL, examples=8, backend="trio")
async def test_every_frame_once(sim: Simulation) -> None:
    assert anyio.get_cancelled_exc_class().__module__ == "trio"
    job = await sim.submit(render.map(range(20)))
    await sim.until(job.done, within="2d")
    assert sorted(await job.results()) == [f"{i:04}.png" for i in range(20)]


@simulate(app, workers=2, faults=faults.NONE, examples=1, backend="trio")
async def test_a_test_may_do_things_to_machines_itself(sim: Simulation) -> None:
    job = await sim.submit(render.map(range(8)))
    await anyio.sleep(1)
    sim.kill("w1")
    sim.freeze("w2", 8)
    sim.cut("people", "server", 2)
    sim.kill("server")
    await anyio.sleep(1)
    sim.start("server")
    sim.start("w1")
    await sim.until(job.done, within="1h")
    assert any(task.losses for task in await job.tasks())


def test_a_broken_promise_is_shown_with_the_plan_that_repeats_it() -> None:
    async def impatient(sim: Simulation) -> None:
        job = await sim.submit(render.map(range(2)))
        await sim.until(job.done, within="8s")

    plan = "seed=0 latency=1 backend=trio kill@1000:w1:9000:0"
    with pytest.raises(NotInTime) as raised:
        simulate(app, workers=1, plan=plan)(impatient)()
    (note,) = raised.value.__notes__
    assert note.splitlines()[0].split() == ["ms", "people", "server", "w1"]
    assert f"Play it again: ORCHESTRA_PLAN='{plan}'" in note
    simulate(app, workers=1, plan="seed=0 latency=1 backend=trio")(impatient)()


@pytest.mark.parametrize("name", ["no_expiry", "cancelled_while_alive"])
def test_a_rule_that_is_taken_out_is_missed(name: str) -> None:
    with removed(name):
        tally = chunk(1, 60, backend="trio")
    assert tally.broken, f"60 simulations did not miss {name}"
    assert "backend=trio" in tally.broken[0].plan
    assert chunk(tally.broken[0].seed, 1, backend="trio").broken == (), "with the rule, all is well"


def test_a_way_to_lose_is_noticed() -> None:
    with mock.patch.dict(sqlite_files.SYNCHRONOUS, full="OFF"):
        tally = chunk(1, 60, "sqlite", "trio")
    assert "was acknowledged, and the disk ends at" in tally.broken[0].why


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_server_that_crashes_at_every_start_is_told_as_that(backend: str) -> None:
    async def ask(sim: Simulation) -> None:
        await sim.submit(render, 1)

    with (
        mock.patch.object(cluster, "http_api", side_effect=RuntimeError("of ours")),
        pytest.raises(Violated, match=r"server crashed: .*of ours"),
    ):
        simulate(app, workers=1, plan=f"seed=1 backend={backend}")(ask)()


def test_nothing_of_the_machine_is_kept() -> None:
    held = psutil.Process().num_fds()
    plan, _ = play_seed(1, "memory", "trio")
    assert any(each.kind in faults.CRASHES for each in plan.troubles)
    assert psutil.Process().num_fds() == held


def test_a_plan_names_its_backend() -> None:
    plan = Plan.read("seed=3 latency=10 backend=trio kill@9:server:10:2")
    assert plan.backend == "trio"
    assert Plan.read(str(plan)) == plan
    assert "backend" not in str(Plan(3))
    with pytest.raises(Malformed, match="is no part of a plan"):
        Plan.read("seed=3 backend=twisted")


def test_the_command_has_a_section_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = "prove simulate --simulations 2 --seed 25 --backend trio --processes 1 --json"
    assert carry_out(words.split()) == 0
    evidence = json.loads(capsys.readouterr().out)
    assert evidence["name"] == "simulate-trio"
    assert evidence["command"].endswith("--simulations 2 --seed 25 --backend trio")
    assert dict(evidence["figures"])["simulations"] == "2, of which 1 were played twice"


@pytest.fixture
def world() -> Iterator[TrioWorld]:
    """Machines on trio, with nothing on them yet."""
    with seeded_trio(Random(1)):
        made = TrioWorld()
        made.network = Network(made, Random(1))
        yield made


def test_a_clock_that_goes_wrong_moves_what_its_machine_waits_for(world: TrioWorld) -> None:
    async def waits() -> None:
        await anyio.sleep(10)  # at the right pace for 2 s, then at half of it
        said.append(world.now_s)
        process.skew(2.0)
        began_s = world.time()
        await anyio.sleep(10)
        said.extend([world.now_s, world.time() - began_s])

    said: list[float] = []
    process = world.process("w1")
    world.start(process, waits)
    world.at(2.0, lambda: process.skew(0.5))
    world.play(lambda: anyio.sleep(30))
    assert said == pytest.approx([18.0, 23.0, 10.0])


def test_what_is_frozen_waits_and_what_is_killed_does_not_even_unwind(world: TrioWorld) -> None:
    async def lives(name: str) -> None:
        try:
            await anyio.sleep(2)
            said.append((name, round(world.now_s)))
            with anyio.CancelScope(shield=True):  # so that nothing but the end of all ends it
                await anyio.sleep_forever()
        finally:
            said.append((f"{name} unwinds", round(world.now_s)))

    said: list[tuple[str, int]] = []
    processes = {name: world.process(name) for name in ("free", "frozen", "killed")}
    for name, process in processes.items():
        world.start(process, partial(lives, name))
    world.at(1.0, processes["frozen"].freeze)
    world.at(1.0, processes["killed"].kill)
    world.at(5.0, processes["frozen"].thaw)
    world.play(lambda: anyio.sleep(30))
    assert said == [("free", 2), ("frozen", 5)]
    del said[:]
    world.unwind(list(processes.values()), anyio.lowlevel.checkpoint)
    assert sorted(name for name, _ in said) == [
        "free unwinds",
        "frozen unwinds",
        "killed unwinds",
    ]


def test_a_circle_in_which_no_time_passes_says_so(world: TrioWorld) -> None:
    async def circle() -> None:
        while anyio.current_time() < 1:
            await anyio.lowlevel.checkpoint()

    with (
        mock.patch.object(trio_world, "TURNS_MAX", 1_000),
        pytest.raises(Stuck, match="round and round"),
    ):
        world.play(circle)
    world.unwind(world.people, anyio.lowlevel.checkpoint)


def test_machines_on_which_nothing_will_happen_say_so(world: TrioWorld) -> None:
    with pytest.raises(Stuck, match="nothing will ever happen"):
        world.play(lambda: anyio.Event().wait())
    world.unwind(world.people, anyio.lowlevel.checkpoint)
