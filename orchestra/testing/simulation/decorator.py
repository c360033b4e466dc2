"""`simulate`: a test of a workflow in a simulated cluster, under faults that are searched for, and made smaller when they break it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Literal

import attrs
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from orchestra.app import App
from orchestra.errors import Malformed
from orchestra.testing import faults as every
from orchestra.testing.diagram import drawn
from orchestra.testing.simulation.cluster import Shape, Transport
from orchestra.testing.simulation.plan import (
    LASTS_MS,
    LATENCIES_MS,
    TROUBLE_MS_MAX,
    TROUBLES_MAX,
    Backend,
    Keeping,
    Plan,
    Trouble,
    places_of,
)
from orchestra.testing.simulation.simulation import Failed, Simulated, Test, play

SEEDS = 65_535
"""Seeds of plans; a larger range would only take longer to make small."""

PLAN_VARIABLE = "ORCHESTRA_PLAN"
"""An environment variable with a plan: it is played alone."""


def simulate(
    app: App,
    *,
    workers: int = 3,
    slots: int = 2,
    faults: frozenset[str] = every.ALL,
    examples: int = 100,
    transport: Transport = "websocket",
    fence: Literal["strict", "patient"] = "strict",
    losses_max: int = 100,
    store: Keeping | None = None,
    backend: Backend = "asyncio",
    plan: str = "",
) -> Callable[[Test], Callable[[], None]]:
    """
    Make a test that plays an asynchronous function in a simulated cluster, once for each of many plans of what goes wrong.

    The cluster is the real system (server, workers, client, and the bytes between them) on a simulated net, disk, clock and machines; it
    needs no time of its own, and the same plan always gives the same story. The function is given a `Simulation`, submits work and says
    what must be so. When it returns everything heals; whatever was accepted then has to end, once, with the results that were made. A
    failure is made as small as possible and shown with a diagram, and with the plan that repeats it.

    Args:
        app: Whose tasks the workers run. Coroutine functions take simulated time; others run in no time.
        workers: How many machines, each with so many ``slots``.
        faults: What may go wrong: names of `orchestra.testing.faults`.
        examples: How many plans are tried. They are the same at every run.
        transport: By which workers are connected, ``websocket`` or ``http``.
        fence: What workers do when they can not renew their lease: ``strict`` ends what runs, ``patient`` lets it run.
        losses_max: How often a task may be lost with its worker before it is given up. In production it is 3, which a few troubles
            reach: a test with that figure has to expect jobs that fail.
        store: Where the server keeps everything: ``memory``, or ``sqlite`` for the real store on a simulated drive, from which a power
            cut takes what was not flushed. Left out, some plans have the one and some the other.
        backend: On whose event loops everything runs, ``asyncio`` or ``trio``. On trio a small server of the same protocols takes the
            place of the real one, which is for asyncio; all else is the same.
        plan: Play this one only, as it was printed. The environment variable ``ORCHESTRA_PLAN`` does the same.

    Raises:
        Malformed: A fault or a plan is none.
    """
    unknown = sorted(faults - (every.ALL | every.ROT))
    if unknown:
        known = ", ".join(sorted(every.ALL | every.ROT))
        raise Malformed(
            f"there is no fault {unknown[0]!r}", where="faults", remedy=f"one of: {known}"
        )
    shape = Shape(app.tasks, workers, slots, transport, fence, losses_max)

    drawn_plans = plans(faults, shape.names, store, backend)
    return lambda test: _searching(test, shape, drawn_plans, examples, plan)


def _searching(
    test: Test, shape: Shape, drawn_plans: st.SearchStrategy[Plan], examples: int, plan: str
) -> Callable[[], None]:
    failing: list[Plan] = []

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    @given(drawn_plans)
    def search(chosen: Plan) -> None:
        try:
            told(test, shape, chosen)
        except Exception:
            failing[:] = [chosen]
            raise

    @wraps(test, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    def simulated() -> None:
        only = plan or os.environ.get(PLAN_VARIABLE, "")
        if only:
            told(test, shape, Plan.read(only))
            return
        failing.clear()
        with _Kept(failing):
            search()
        if failing:
            told(test, shape, smaller(test, shape, failing[0]))

    # A test runner must not take the function's own parameter for something to be given.
    del simulated.__wrapped__
    return simulated


def told(test: Test, shape: Shape, plan: Plan) -> Simulated:
    """Play a plan; what goes wrong in it carries its diagram and the plan."""
    try:
        return play(test, shape, plan)
    except Failed as failed:
        failed.cause.add_note(
            f"{drawn(failed.lines)}\n\nPlay it again: {PLAN_VARIABLE}='{plan}', or simulate(..., plan='{plan}')"
        )
        raise failed.cause from None


@attrs.frozen
class _Kept:
    """What ends a search that found a plan is told by the plan, when it is smaller still."""

    failing: list[Plan]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> bool:
        return bool(self.failing)


def smaller(test: Test, shape: Shape, plan: Plan) -> Plan:
    """The plan without the troubles that it does not need to fail, which a search by choices does not always find."""
    at = 0
    while at < len(plan.troubles):
        less = attrs.evolve(plan, troubles=plan.troubles[:at] + plan.troubles[at + 1 :])
        try:
            play(test, shape, less)
        except Failed:
            plan = less
        else:
            at += 1
    return plan


def plans(
    faults: frozenset[str],
    workers: Sequence[str],
    store: Keeping | None = None,
    backend: Backend = "asyncio",
) -> st.SearchStrategy[Plan]:
    """Plans with these faults, and this store; without one, with either."""
    loops = st.just(backend)
    # Those that come first are the smaller ones, and met more often.
    stores = st.sampled_from([store] if store else ["memory", "memory", "memory", "sqlite"])
    none: st.SearchStrategy[tuple[Trouble, ...]] = st.just(())
    if not faults:
        latencies = st.sampled_from(LATENCIES_MS)
        return st.builds(Plan, st.integers(0, SEEDS), latencies, none, stores, loops)

    def trouble(kind: str, at_ms: int, which: int, lasts_ms: int, number: int) -> Trouble:
        places = places_of(kind, workers)
        return Trouble(at_ms, kind, places[which % len(places)], lasts_ms, number)

    troubles = st.builds(
        trouble,
        st.sampled_from(sorted(faults)),
        st.integers(0, TROUBLE_MS_MAX // 6) | st.integers(0, TROUBLE_MS_MAX),
        st.integers(0, len(workers)),
        st.sampled_from(LASTS_MS),
        st.integers(0, 7),
    )
    return st.builds(
        Plan,
        st.integers(0, SEEDS),
        st.sampled_from(LATENCIES_MS),
        st.lists(troubles, max_size=TROUBLES_MAX).map(lambda each: tuple(sorted(each))),
        stores,
        loops,
    )
