"""
The contract of `orchestra.ports.Engine` as a suite: prove your own engine with it.

::

    BENCH = EngineBench(
        make=lambda: MyEngine(),
        app="process",
        quick=b'{"argv": ["true"]}',
        failing=b'{"argv": ["false"]}',
        lasting=b'{"argv": ["sleep", "600"]}',
        talking=b'{"argv": ["printf", "one two"]}', said=b"one two",
        broken=b'{"argv": 7}',
    )

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_engine(check):
        await check(BENCH)

or all at once: ``await check_engine(bench)``. Each check enters a new engine.
"""

from __future__ import annotations

import time

import anyio

from orchestra.ports import Ended
from orchestra.statemachine.records import Cause
from orchestra.testing.engine_bench import (
    Check,
    EngineBench,
    EngineBroken,
    Recorder,
    expect,
    order_for,
)

__all__ = [
    "CHECKS",
    "Check",
    "EngineBench",
    "EngineBroken",
    "Recorder",
    "check_engine",
    "order_for",
]


async def check_engine(bench: EngineBench) -> None:
    """
    Run every check of `CHECKS`.

    Raises:
        EngineBroken: At the first law that does not hold.
    """
    for check in CHECKS:
        await check(bench)


async def check_completes(bench: EngineBench) -> None:
    """Work runs and completes: running is told once, the end once and last, and nothing is left to query."""
    sink, order = Recorder(), order_for(bench.app, bench.quick)
    async with bench.make() as engine:
        expect(bench.app in engine.apps, "an engine names its apps")
        await engine.start(order, sink)
        ended = await sink.end_of(order.attempt_id, bench.end_s)
        expect(ended.outcome == "completed", f"quick work completes, it {_shown(ended)}")
        expect(await engine.query() == (), "what ended is not told as running")
        await sink.start_of(order.attempt_id, 0)


async def check_fails(bench: EngineBench) -> None:
    """Work that fails ends as failed, with a cause and a message, and does not harm the engine."""
    sink = Recorder()
    async with bench.make() as engine:
        for template, outcome in ((bench.failing, "failed"), (bench.quick, "completed")):
            order = order_for(bench.app, template)
            await engine.start(order, sink)
            ended = await sink.end_of(order.attempt_id, bench.end_s)
            expect(ended.outcome == outcome, f"{outcome} is told, not {_shown(ended)}")


async def check_unstartable(bench: EngineBench) -> None:
    """What can not be started raises nothing: it ends as failed, and says why."""
    sink = Recorder()
    async with bench.make() as engine:
        for template in (bench.broken, b"not even JSON"):
            if template is not None:
                order = order_for(bench.app, template)
                await engine.start(order, sink)
                ended = await sink.end_of(order.attempt_id, bench.end_s)
                expect(ended.outcome == "failed", f"what is broken fails, it {_shown(ended)}")


async def check_same_id_once(bench: EngineBench) -> None:
    """A start that is told again changes nothing, whether the attempt runs or has ended."""
    sink = Recorder()
    async with bench.make() as engine:
        lasting, quick = order_for(bench.app, bench.lasting), order_for(bench.app, bench.quick)
        for _ in range(3):
            await engine.start(lasting, sink)
        await sink.start_of(lasting.attempt_id, bench.end_s)
        await engine.start(lasting, sink)
        expect(await engine.query() == (lasting.attempt_id,), "one id is one attempt")
        await engine.start(quick, sink)
        await sink.end_of(quick.attempt_id, bench.end_s)
        await engine.start(quick, sink)
        await engine.stop(lasting.attempt_id, "kill")
        await sink.end_of(lasting.attempt_id, bench.end_s)
    for order in (lasting, quick):
        ends = sink.calls.count(("ended", order.attempt_id))
        expect(ends == 1, f"a repeated start is no second attempt: {ends} ends were told")


async def check_many_at_once(bench: EngineBench) -> None:
    """Attempts run side by side; each ends once, and `Engine.query` names those that run."""
    sink = Recorder()
    orders = [order_for(bench.app, bench.quick) for _ in range(20)]
    lasting = [order_for(bench.app, bench.lasting) for _ in range(2)]
    async with bench.make() as engine:
        for order in (*lasting, *orders):
            await engine.start(order, sink)
        for order in orders:
            ended = await sink.end_of(order.attempt_id, bench.end_s)
            expect(ended.outcome == "completed", f"each completes, one {_shown(ended)}")
        running = {order.attempt_id for order in lasting}
        expect(set(await engine.query()) == running, "query names what runs and nothing else")
        for id in running:
            await engine.stop(id, "kill")
            await sink.end_of(id, bench.end_s)


async def check_output(bench: EngineBench) -> None:
    """Output comes in order and whole before the end, however slowly it is taken away."""
    if bench.talking is None:
        return
    sink, order = Recorder(hold=True), order_for(bench.app, bench.talking)
    async with bench.make() as engine:
        await engine.start(order, sink)
        await sink.start_of(order.attempt_id, bench.end_s)
        expect(order.attempt_id not in sink.ends, "the end waits for the output")
        sink.release()
        ended = await sink.end_of(order.attempt_id, bench.end_s)
        expect(ended.outcome == "completed", f"what talks completes, it {_shown(ended)}")
    written = sink.written.get((order.attempt_id, "stdout"), b"")
    expect(written == bench.said, f"output is whole and in order, not {written[:200]!r}")


async def check_ladder(bench: EngineBench) -> None:
    """The ladder ends what runs, is climbed by repetition without harm, and tells it as stopped."""
    sink, order = Recorder(), order_for(bench.app, bench.lasting)
    async with bench.make() as engine:
        await engine.start(order, sink)
        await sink.start_of(order.attempt_id, bench.end_s)
        for rung in ("asked", "asked", "term", "term"):
            await engine.stop(order.attempt_id, rung)
        ended = await sink.end_of(order.attempt_id, bench.end_s)
        expect(ended.outcome == "stopped", f"a stop is told as stopped, not {_shown(ended)}")
        for rung in ("asked", "term", "kill"):
            await engine.stop(order.attempt_id, rung)


async def check_stubborn(bench: EngineBench) -> None:
    """What heeds nothing is killed, and its end is not told before."""
    if bench.stubborn is None:
        return
    sink, order = Recorder(), order_for(bench.app, bench.stubborn)
    async with bench.make() as engine:
        await engine.start(order, sink)
        await sink.until(lambda: bool(sink.written), "it says that it is ready", bench.end_s)
        await engine.stop(order.attempt_id, "asked")
        await engine.stop(order.attempt_id, "term")
        with anyio.move_on_after(0.3):
            await sink.until(lambda: order.attempt_id in sink.ends, "", bench.end_s)
        expect(order.attempt_id not in sink.ends, "stopped is not told while something is alive")
        expect(order.attempt_id in await engine.query(), "it is told as running")
        await engine.stop(order.attempt_id, "kill")
        ended = await sink.end_of(order.attempt_id, bench.end_s)
        expect(ended.outcome == "stopped", f"a killed one is stopped, not {_shown(ended)}")


async def check_stop_at_once(bench: EngineBench) -> None:
    """A stop right behind the start is not lost."""
    sink, order = Recorder(), order_for(bench.app, bench.lasting)
    async with bench.make() as engine:
        await engine.start(order, sink)
        await engine.stop(order.attempt_id, "kill")
        ended = await sink.end_of(order.attempt_id, bench.end_s)
        expect(ended.outcome == "stopped", f"it is stopped, not {_shown(ended)}")


async def check_unknown_ids(bench: EngineBench) -> None:
    """Stops for attempts that it does not have change nothing, at every rung."""
    async with bench.make() as engine:
        for rung in ("asked", "term", "kill"):
            await engine.stop("no-such-attempt", rung)
        expect(await engine.query() == (), "an unknown id is not taken up")


async def check_time_limit(bench: EngineBench) -> None:
    """What runs longer than it may ends as failed, with `Cause.TIMEOUT`."""
    if not bench.limits_time:
        return
    sink, order = Recorder(), order_for(bench.app, bench.lasting, run_ms_max=200)
    async with bench.make() as engine:
        await engine.start(order, sink)
        ended = await sink.end_of(order.attempt_id, bench.end_s)
    law = f"too long a run is failed by timeout, not {_shown(ended)}"
    expect((ended.outcome, ended.cause) == ("failed", Cause.TIMEOUT), law)


async def check_leaving(bench: EngineBench) -> None:
    """Leaving ends everything, tells each end, and takes nothing new."""
    sink = Recorder()
    orders = [order_for(bench.app, bench.lasting) for _ in range(3)]
    engine = bench.make()
    async with engine:
        for order in orders:
            await engine.start(order, sink)
        await sink.start_of(orders[0].attempt_id, bench.end_s)
        left_at = time.monotonic()
    expect(time.monotonic() - left_at < bench.end_s, "leaving takes no longer than it may")
    for order in orders:
        expect(order.attempt_id in sink.ends, "every end is told before leaving returns")
        ended = sink.ends[order.attempt_id]
        expect(ended.outcome == "stopped", f"what is left is stopped, not {_shown(ended)}")
    expect(await engine.query() == (), "nothing runs in an engine that was left")
    late = order_for(bench.app, bench.quick)
    await engine.start(late, sink)
    ended = await sink.end_of(late.attempt_id, bench.end_s)
    expect(ended.outcome == "failed", f"an engine that was left starts nothing, it {_shown(ended)}")


async def check_leaving_cancelled(bench: EngineBench) -> None:
    """Leaving because the surroundings were cancelled tells the ends all the same."""
    sink, order = Recorder(), order_for(bench.app, bench.lasting)
    with anyio.CancelScope() as scope:
        async with bench.make() as engine:
            await engine.start(order, sink)
            await sink.start_of(order.attempt_id, bench.end_s)
            scope.cancel()
            await anyio.sleep_forever()
    expect(order.attempt_id in sink.ends, "an end is told although everything was cancelled")


def _shown(ended: Ended) -> str:
    return f"{ended.outcome} ({ended.cause.value}: {ended.message[:200]})"


CHECKS: tuple[Check, ...] = (
    check_completes,
    check_fails,
    check_unstartable,
    check_same_id_once,
    check_many_at_once,
    check_output,
    check_ladder,
    check_stubborn,
    check_stop_at_once,
    check_unknown_ids,
    check_time_limit,
    check_leaving,
    check_leaving_cancelled,
)
"""All laws, each as a function of a bench."""
