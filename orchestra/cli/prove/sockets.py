"""``prove sockets``: hostile sockets against real servers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed

if TYPE_CHECKING:
    from orchestra.testing.hostile.campaign import Besieged, Plan
    from orchestra.testing.proof_page import Evidence

SLOW_MAX = 3_000
CLIENTS_MAX = 400
FLOOD_MAX = 100_000_000


def sockets(
    *,
    slow: Annotated[int, Parameter(help="Slow sockets.")] = 200,
    clients: Annotated[int, Parameter(help="Good clients beside them.")] = 20,
    flood: Annotated[int, Parameter(help="Requests of the flood.")] = 5_000,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Do to real servers what hostile sockets do: odd bytes, rule-breaking frames, slowness, floods.

    Servers and a worker are started for it on 127.0.0.1. Each case of bytes gets its one planned answer, memory stays within its
    bound under each attack by websocket, slow sockets are gone while good clients go on, and what a flood was promised is done.
    """
    from orchestra.testing.hostile.campaign import Plan, besiege

    for name, number, most in (
        ("--slow", slow, SLOW_MAX),
        ("--clients", clients, CLIENTS_MAX),
        ("--flood", flood, FLOOD_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    plan = Plan(slow, clients, flood)
    found = anyio.run(partial(besiege, plan, speech.say))
    return conclude(_evidence(found, plan), proved=True, page=write, json=json)


def _evidence(found: Besieged, plan: Plan) -> Evidence:
    from orchestra.testing.hostile.frames import ATTACKERS, GROWTH_BYTES_MAX
    from orchestra.testing.proof_page import Evidence

    slowed, flooded = found.slowed, found.flooded
    bound = f"bound {GROWTH_BYTES_MAX >> 20} MiB"
    grown = [
        (f"{name}, {ATTACKERS} at once", f"the server grew by {size / 2**20:.1f} MiB ({bound})")
        for name, size in found.grown.items()
    ]
    waits = f"{slowed.before_p99_s * 1_000:,.0f} ms before, {slowed.during_p99_s * 1_000:,.0f} ms during"
    return Evidence(
        name="sockets",
        title="Hostile sockets",
        command=(
            f"python -m orchestra prove sockets --slow {plan.slow} --clients {plan.clients} --flood {plan.flood}"
        ),
        figures=(
            ("cases of bytes with the one answer that is planned", f"{found.cases}"),
            *grown,
            (f"{slowed.sockets:,} slow sockets", f"the last was gone after {slowed.gone_s:.1f} s"),
            (f"{plan.clients} good clients meanwhile", f"{slowed.good:,} answers, p99 {waits}"),
            (
                f"a flood of {flooded.asked:,} requests in {flooded.seconds:.0f} s",
                f"{flooded.taken:,} taken, {flooded.refused:,} refused with 429 or 503 and Retry-After",
            ),
            ("jobs accepted in the flood", f"{flooded.jobs:,}, all completed"),
            ("memory of the server over the flood", f"{flooded.growth:+.1%}"),
        ),
        seeds="",
        result="Every case was answered as planned, memory stayed within its bounds, and good clients were served.",
    )
