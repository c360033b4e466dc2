"""The whole system, simulated: users' tests under faults, the same story at every run, and rules that are missed when taken out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextvars import Context

import anyio
import anyio.lowlevel
import psutil
import pytest

import orchestra
from orchestra.cli.prove.simulate import played
from orchestra.errors import Malformed
from orchestra.testing import faults, simulate
from orchestra.testing.removed_rules import removed
from orchestra.testing.simulation.campaign import Tally, campaign, chunk
from orchestra.testing.simulation.cluster import Shape
from orchestra.testing.simulation.loop import Process, SimulatedLoop, Stuck
from orchestra.testing.simulation.plan import Plan, Trouble, draw
from orchestra.testing.simulation.sample import Scenario, sample_app
from orchestra.testing.simulation.simulation import NotInTime, Simulation, play
from orchestra.testing.simulation.troubles import TROUBLES
from orchestra.testing.simulation.truth import Violated
from orchestra.transports import serve as serving

pytestmark = pytest.mark.aside

app = orchestra.App()

BIND = serving._bind


@pytest.fixture(autouse=True)
def nothing_stays_replaced() -> Generator[None]:
    """Simulated servers come and go in any order; the real one must be as it was after all of them."""
    yield
    assert serving._bind is BIND


Test = Callable[[Simulation], Awaitable[None]]


@app.task(retries=3)
async def render(frame: int) -> str:
    await anyio.sleep(3)
    return f"{frame:04}.png"


@app.task
async def slow(number: int) -> int:
    await anyio.sleep(20)
    return number


@app.task
async def hang(number: int) -> int:
    await anyio.sleep_forever()
    return number


@app.task
def add(one: int, other: int) -> int:
    return one + other


@simulate(app, workers=3, faults=faults.ALL, examples=40)
async def test_every_frame_once(sim: Simulation) -> None:
    job = await sim.submit(render.map(range(20)))
    await sim.until(job.done, within="2d")
    assert sorted(await job.results()) == [f"{i:04}.png" for i in range(20)]


@simulate(app, workers=2, faults=faults.NET | faults.CRASHES, examples=20, transport="http")
async def test_over_http_as_well(sim: Simulation) -> None:
    job = await sim.submit(render.map(range(4)), key="film")
    again = await sim.submit(render.map(range(4)), key="film")
    assert again.id == job.id
    await sim.until(job.done, within="2d")
    assert len(await job.results()) == 4


@simulate(app, workers=1, faults=faults.NONE, examples=3)
async def test_functions_without_a_loop_take_no_time(sim: Simulation) -> None:
    job = await sim.submit(add, 1, 2)
    assert await job.result() == 3
    assert sim.now_s < 5


@simulate(app, workers=2, faults=faults.NONE, examples=1)
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
    assert any("loss" in str(task) or task.losses for task in await job.tasks())


def test_a_broken_promise_is_made_small_and_shown_with_the_plan_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def impatient(sim: Simulation) -> None:
        job = await sim.submit(render.map(range(2)))
        await sim.until(job.done, within="8s")

    with pytest.raises(NotInTime) as raised:
        simulate(app, workers=1, faults=faults.CRASHES, examples=40)(impatient)()
    (note,) = [each for each in raised.value.__notes__ if "Play it again" in each]
    rows = note.splitlines()
    assert rows[0].split() == ["ms", "people", "server", "w1"]
    told = note.rpartition("plan='")[2].rstrip("')")
    plan = Plan.read(told)
    assert str(plan) == told
    assert 1 <= len(plan.troubles) <= 4, "made small"
    with pytest.raises(NotInTime):
        simulate(app, workers=1, faults=faults.CRASHES, plan=told)(impatient)()
    monkeypatch.setenv("ORCHESTRA_PLAN", "seed=1 latency=10")
    simulate(app, workers=1, faults=faults.CRASHES)(impatient)()


def test_a_task_that_is_lost_too_often_is_given_up_as_in_production() -> None:
    plan = "seed=1 latency=1 " + " ".join(f"kill@{at}:w1:100:0" for at in (2000, 9000, 16_000))

    async def unlucky(sim: Simulation) -> None:
        job = await sim.submit(slow, 1)
        await sim.until(job.done, within="1h")
        (task,) = await job.tasks()
        said.append((task.status, task.cause))

    said: list[tuple[str, str]] = []
    for losses_max in (3, 100):
        simulate(app, workers=1, losses_max=losses_max, plan=plan)(unlucky)()
    assert said == [("failed", "poison"), ("completed", "")]


def test_work_that_is_given_out_when_it_is_not_its_turn_is_a_violation() -> None:
    async def crowd(sim: Simulation) -> None:
        jobs = [await sim.submit(render.map(range(4))) for _ in range(2)]
        for job in jobs:
            await sim.until(job.done, within="1h")

    played = simulate(app, workers=1, plan="seed=1")(crowd)
    played()
    with removed("last_in_first_out"), pytest.raises(Violated, match=r"I10: .* before "):
        played()


@simulate(app, workers=1, plan="seed=1")
async def test_people_ask_again_while_the_server_is_away(sim: Simulation) -> None:
    job = await sim.submit(add, 1, 2)
    await sim.until(job.done)
    sim.kill("server")
    sim.cluster.later(5.0, lambda: sim.start("server"))
    assert await job.results() == [3]
    assert sim.now_s > 5


def test_work_that_never_ends_is_a_violation() -> None:
    async def forget(sim: Simulation) -> None:
        await sim.submit(hang, 1)

    with pytest.raises(Violated, match="I9: job 1 is running and never ends"):
        simulate(app, workers=1, faults=faults.NONE, plan="seed=1")(forget)()


def test_a_fault_or_a_plan_that_is_none_is_refused() -> None:
    with pytest.raises(Malformed, match="there is no fault 'flood'"):
        simulate(app, faults=frozenset({"flood"}))
    with pytest.raises(Malformed, match="'kill' is no part of a plan"):
        Plan.read("seed=1 kill")
    assert set(TROUBLES) == faults.ALL | faults.ROT


def test_no_simulation_breaks_an_invariant() -> None:
    *_, tally = campaign(50)
    assert tally.broken == ()
    assert (tally.simulations, tally.twice) == (50, 2)
    assert tally.troubles > 50
    assert tally.commits > 1_000


@pytest.mark.parametrize(
    "name",
    [
        "no_expiry",
        "no_backoff_alarm",
        "cancelled_while_alive",
        "deaf_job",
        "clockwork_ids",
        "forgotten_keys",
        "orders_told_once",
        "reports_told_once",
    ],
)
def test_a_rule_that_is_taken_out_is_missed(name: str) -> None:
    with removed(name):
        tally = chunk(1, 60)
    assert tally.broken, f"60 simulations did not miss {name}"
    assert chunk(tally.broken[0].seed, 1).broken == (), "with the rule back, all is well"


def test_a_plan_of_a_seed_has_troubles_that_its_places_may_meet() -> None:
    for seed in range(200):
        plan = draw(seed, faults.ALL, ("w1", "w2"))
        assert Plan.read(str(plan)) == plan
        assert all(trouble.kind in faults.ALL for trouble in plan.troubles)
        assert list(plan.troubles) == sorted(plan.troubles)
    assert str(Trouble(3, "kill", "w1", 900)) == "kill@3:w1:900:0"


def test_a_wait_shorter_than_the_clock_can_tell_comes_to_its_end() -> None:
    # A worker waited for 5e-10 s, was woken at once, and waited again.
    plan = Plan.read(
        "seed=112581 latency=1 cut@287:w1:20000:2 step_clock@3260:server:10:7 slow@4278:people:20000:5"
        " cut@13640:people:300:6 drain@19101:w1:20000:7 crash_at_commit@27373:server:4000:0"
    )
    tasks = sample_app().tasks
    shape = Shape(tasks, workers=1, slots=2, transport="websocket", fence="patient")
    assert play(Scenario(tasks), shape, plan).simulated_ms > 0


def test_a_clock_that_goes_wrong_moves_what_its_machine_waits_for() -> None:
    async def waits(loop: SimulatedLoop, process: Process, said: list[float]) -> None:
        await anyio.sleep(10)  # at the right pace for 2 s, then at half of it
        said.append(loop.now_s)
        process.skew(2.0)
        began_s = loop.time()
        await anyio.sleep(10)
        said += [loop.now_s, loop.time() - began_s]

    loop = SimulatedLoop()
    said: list[float] = []
    try:
        process = Process(loop, "w1")
        task = loop.create_task(waits(loop, process, said), context=process.context())
        loop.call_later(2.0, process.skew, 0.5, context=Context())
        loop.run_until_complete(task)
    finally:
        loop.close()
    assert said == pytest.approx([18.0, 23.0, 10.0])


def test_machines_are_gone_for_good_but_the_last() -> None:
    async def films(sim: Simulation) -> None:
        job = await sim.submit(render.map(range(4)))
        await sim.until(job.done, within="1h")
        sim.start("w1")
        await anyio.sleep(20)
        said.append(sorted(sim.cluster.gone))
        said.append([each.name for each in await sim.client.workers() if each.status == "online"])

    said: list[list[str]] = []
    plan = "seed=1 latency=1 gone@1000:w1:10:0 gone@1500:w2:10:0"
    simulate(app, workers=2, plan=plan)(films)()
    assert said == [["w1"], ["w2"]]


def test_a_circle_in_which_no_time_passes_says_so() -> None:
    async def circle() -> None:
        while anyio.current_time() < 1:
            await anyio.lowlevel.checkpoint()

    loop = SimulatedLoop()
    try:
        with pytest.raises(Stuck, match="round and round"):
            loop.run_until_complete(circle())
    finally:
        loop.close()


def test_a_loop_in_which_nothing_will_happen_says_so() -> None:
    loop = SimulatedLoop()
    try:
        with pytest.raises(Stuck):
            loop.run_until_complete(anyio.Event().wait())
    finally:
        loop.run_until_complete(anyio.lowlevel.checkpoint())
        loop.close()


def test_a_campaign_that_is_interrupted_keeps_what_it_reached() -> None:
    def interrupted() -> Generator[Tally]:
        yield Tally(simulations=50)
        yield Tally(simulations=100)
        raise KeyboardInterrupt

    assert played(interrupted()) == Tally(simulations=100)


def test_a_campaign_that_is_given_up_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    # What was begun is played to its end, so it is little here.
    monkeypatch.setattr("orchestra.testing.simulation.campaign.CHUNK", 2)
    before = set(psutil.Process().children(recursive=True))
    running = campaign(2_000, seed=1, processes=2)
    assert next(running).simulations
    running.close()
    left = [_words(child) for child in set(psutil.Process().children(recursive=True)) - before]
    assert [words for words in left if words and "resource_tracker" not in words] == []


def _words(process: psutil.Process) -> str:
    """What it was started with; nothing of one that has just gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
