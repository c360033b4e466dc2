"""``prove sockets``: hostile sockets against real servers."""

from __future__ import annotations

from collections.abc import Iterator
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
    bound under each attack by websocket, slow sockets are gone within 15 s while good clients wait at most twice as long as before, and
    of a flood of ten times what is let in all that was accepted is done. Waits are judged, so the machine should have nothing else to do.
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
    for each in found.broken:
        speech.warn(each)
    return conclude(evidence_of(found, plan), proved=not found.broken, page=write, json=json)


def evidence_of(found: Besieged, plan: Plan) -> Evidence:
    """What goes on the page: figures as far as it came, and the first thing that was broken."""
    from orchestra.testing.proof_page import Evidence

    return Evidence(
        name="sockets",
        title="Hostile sockets",
        command=(
            f"python -m orchestra prove sockets --slow {plan.slow} --clients {plan.clients} --flood {plan.flood}"
        ),
        figures=(
            ("cases of bytes with the one answer that is planned", f"{found.cases}"),
            *_grown(found),
            *_slowed(found, plan),
            *_flooded(found),
            ("promises that were broken", "; ".join(found.broken) or "none"),
        ),
        seeds="",
        result=f"Broken: {found.broken[0]}." if found.broken else _RESULT,
    )


_RESULT = (
    "Every case was answered as planned, memory stayed within its bounds, every slow socket was gone in time while good clients waited at"
    " most twice as long as before, and all that was accepted in a tenfold flood was done."
)


def _grown(found: Besieged) -> Iterator[tuple[str, str]]:
    from orchestra.testing.hostile.frames import ATTACKERS, GROWTH_BYTES_MAX

    bound = f"bound {GROWTH_BYTES_MAX >> 20} MiB"
    for name, size in found.grown.items():
        yield f"{name}, {ATTACKERS} at once", f"the server grew by {size / 2**20:.1f} MiB ({bound})"


def _slowed(found: Besieged, plan: Plan) -> Iterator[tuple[str, str]]:
    from orchestra.testing.hostile.slow import GONE_S, WAITS_LONGER_MAX

    if (slowed := found.slowed) is None:
        return
    watched, before_ms, during_ms = (
        slowed.watched,
        slowed.before_p99_s * 1_000,
        slowed.during_p99_s * 1_000,
    )
    yield (
        f"{slowed.sockets:,} slow sockets, opened in {watched.opened_s:.1f} s",
        f"{watched.left:,} were left; the longest was there for {watched.gone_s:.1f} s (bound {GONE_S:g} s)",
    )
    yield (
        f"{plan.clients} good clients meanwhile, which ask all at the same time",
        f"{slowed.good:,} answers, p99 {before_ms:,.1f} ms before, {during_ms:,.1f} ms during (bound {WAITS_LONGER_MAX:g} times)",
    )


def _flooded(found: Besieged) -> Iterator[tuple[str, str]]:
    from orchestra.testing.hostile.flood import GROWTH_SHARE, RATIO

    if (flooded := found.flooded) is None:
        return
    yield (
        f"a flood of {flooded.asked:,} requests in {flooded.seconds:.0f} s",
        f"{flooded.taken:,} taken, {flooded.refused:,} refused with 429 or 503 and Retry-After",
    )
    yield "asked to taken", f"{flooded.ratio:.1f} (at least {RATIO:g})"
    yield "jobs accepted in the flood", f"{flooded.jobs:,}, all completed"
    yield "memory of the server over the flood", f"{flooded.growth:+.1%} (bound {GROWTH_SHARE:.0%})"
