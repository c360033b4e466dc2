"""``prove linearizability``: histories of many clients of one server that is killed."""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Annotated

import anyio
import attrs
from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.linearizability import (
    ABSENT,
    History,
    Load,
    Server,
    Verdict,
    check,
    job_model,
    record,
)
from orchestra.testing.proof_page import Evidence

HISTORIES_MAX = 1_000_000
CLIENTS_MAX = 100
OPERATIONS_MAX = 100_000
KILLS_MAX = 1_000


def linearizability(
    *,
    histories: Annotated[int, Parameter(help="How many runs of all clients.")] = 20,
    clients: Annotated[int, Parameter(help="How many ask at the same time.")] = 16,
    operations: Annotated[
        int, Parameter(help="How many questions each client asks, in each run.")
    ] = 40,
    kills: Annotated[int, Parameter(help="How often the server is killed, in each run.")] = 1,
    seed: Annotated[int, Parameter(help="The seed of the first run; the others count on.")] = 1,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Have many clients ask a real server that is killed, and look for an order that explains every answer.

    Clients submit, pause, resume, cancel, try again and look at the same jobs over HTTP, and a worker reports their attempts. An answer
    that no order of what was done explains is shown with the whole history of its job.
    """
    for name, number, most in (
        ("--histories", histories, HISTORIES_MAX),
        ("--clients", clients, CLIENTS_MAX),
        ("--operations", operations, OPERATIONS_MAX),
        ("--kills", kills, KILLS_MAX),
    ):
        least = 0 if name == "--kills" else 1
        if not least <= number <= most:
            raise Malformed(f"must be from {least} to {most}, not {number}", where=name)
    load = Load(clients=clients, operations=operations, kills=kills)
    began_s = time.monotonic()
    found = anyio.run(partial(_recorded, load, histories, seed))
    evidence = evidence_of(found, load, histories, seed, seconds=time.monotonic() - began_s)
    if found.broken is not None and not json:
        _show(*found.broken)
    return conclude(evidence, proved=found.broken is None, page=write, json=json)


@attrs.define(slots=True)
class Found:
    """What was recorded; it ends with the first history that no order explains."""

    histories: int = 0
    jobs: int = 0
    operations: int = 0
    unanswered: int = 0
    orders: int = 0
    kills: int = 0
    broken: tuple[History, Verdict] | None = None


async def _recorded(load: Load, histories: int, seed: int) -> Found:
    found = Found()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        await server.start()
        try:
            for number in range(histories):
                drawn = attrs.evolve(load, seed=seed + number)
                told = await record(server, drawn, f"run-{number}")
                found.histories += 1
                found.kills += load.kills
                for history in told.values():
                    if not _explained(history, found):
                        return found
                if (number + 1) % 10 == 0:
                    speech.say(f"{number + 1} of {histories} histories")
        finally:
            server.kill()
    return found


def _explained(history: History, found: Found) -> bool:
    verdict = check(history, job_model, ABSENT)
    found.jobs += 1
    found.operations += len(history)
    found.unanswered += sum(each.outcome is None for each in history)
    found.orders += verdict.orders
    if not verdict.linearizable:
        found.broken = (history, verdict)
    return verdict.linearizable


def _show(history: History, verdict: Verdict) -> None:
    speech.put("what the clients were told of one job:")
    for each in sorted(history, key=lambda each: each.began_s):
        speech.put(speech.clean(str(each)))
    speech.put("the longest beginning of an order that explains its answers:")
    for each in verdict.furthest:
        speech.put(speech.clean(str(each)))
    speech.put("no order explains all answers")


def evidence_of(found: Found, load: Load, histories: int, seed: int, *, seconds: float) -> Evidence:
    """What goes on the page."""
    figures = (
        ("histories", f"{found.histories:,} of {load.clients} clients each"),
        ("operations", f"{found.operations:,} on {found.jobs:,} jobs"),
        ("operations without an answer", f"{found.unanswered:,}"),
        ("kills of the server (SIGKILL, started again)", f"{found.kills:,}"),
        ("beginnings of orders looked at", f"{found.orders:,}"),
        (
            "rate",
            f"{found.operations / max(seconds, 1e-9):,.0f} operations/s, restarts and checks included",
        ),
        ("histories that no order explains", f"{int(found.broken is not None)}"),
    )
    return Evidence(
        name="linearizability",
        title="Linearizability under kills",
        command=(
            f"python -m orchestra prove linearizability --histories {histories} --clients {load.clients}"
            f" --operations {load.operations} --kills {load.kills} --seed {seed}"
        ),
        figures=figures,
        seeds=f"{seed} to {seed + found.histories - 1}",
        result=_EXPLAINED if found.broken is None else _told(*found.broken),
    )


_EXPLAINED = (
    "For every job there is an order of what was done that explains every answer, each operation between its question and"
    " its answer."
)


def _told(history: History, verdict: Verdict) -> str:
    return (
        f"Broken: of the {len(history)} operations on one job no order explains all answers; the longest beginning of one that does has"
        f" {len(verdict.furthest)}."
    )
