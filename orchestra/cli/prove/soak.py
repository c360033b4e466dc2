"""``prove soak``: steady work for hours, and what each process takes of the machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.fields import duration_ms
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence

if TYPE_CHECKING:
    from orchestra.testing.soak import Look, Soaked

LASTS_S = (10.0, 30 * 86_400.0)
"""In less nothing gets warm."""

MANY_MAX = 1_000
LOOKS = 600
"""How often processes are looked at, in a long run; in a short one once a second."""


def soak(
    *,
    lasts: Annotated[str, Parameter(help="How long it goes on, such as 2h.")] = "30m",
    workers: Annotated[int, Parameter(help="How many workers.")] = 2,
    clients: Annotated[int, Parameter(help="How many clients ask at the same time.")] = 4,
    growth: Annotated[
        float, Parameter(help="How many MiB each process may grow by in the second half.")
    ] = 1.0,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Keep a real server and real workers at steady work, and see that none of them takes more and more of the machine.

    Jobs complete, fail and are cancelled, somebody watches, and what has ended leaves the server's memory. In the second half no process
    may grow by more than 1 MiB, nor have more and more files open. The first half has to be long enough for the store's page cache to fill
    up: some ten minutes.
    """
    from orchestra.testing.soak import Soak
    from orchestra.testing.soak import soak as play

    lasts_s = duration_ms(lasts, "--lasts") / 1_000
    least, longest = LASTS_S
    if not least <= lasts_s <= longest:
        told = f"must be from {least:g} to {longest:g} s, not {lasts_s:g}"
        raise Malformed(told, where="--lasts")
    for name, number in (("--workers", workers), ("--clients", clients)):
        if not 1 <= number <= MANY_MAX:
            raise Malformed(f"must be from 1 to {MANY_MAX}, not {number}", where=name)
    plan = Soak(
        lasts_s=lasts_s,
        workers=workers,
        clients=clients,
        look_s=max(1.0, lasts_s / LOOKS),
        growth_mib=growth,
    )
    soaked = anyio.run(play, plan)
    for each in soaked.broken:
        speech.warn(each)
    words = f"--lasts {lasts} --workers {workers} --clients {clients} --growth {growth:g}"
    evidence = Evidence(
        name="soak",
        title="Steady work",
        command=f"python -m orchestra prove soak {words}",
        figures=tuple(_figures(soaked, lasts)),
        seeds="",
        result=soaked.broken[0] if soaked.broken else _RESULT,
    )
    return conclude(evidence, proved=not soaked.broken, page=write, json=json)


_RESULT = "No process took more and more of the machine, every job ended as it should, and no process was left behind."


def _figures(soaked: Soaked, lasts: str) -> Iterator[tuple[str, str]]:
    yield "time", lasts
    yield "jobs", ", ".join(f"{count:,} {status}" for status, count in sorted(soaked.ends.items()))
    yield "tasks", f"{soaked.tasks:,}"
    for name, looks in soaked.looks.items():
        yield name, _told(looks)


def _told(looks: list[Look]) -> str:
    from orchestra.testing.soak import MIB, growth_mib, second_half

    late = second_half(looks)
    if not late[1:]:
        return "not looked at"
    own = ", ".join(f"{look.own_bytes / MIB:.1f}" for look in (looks[0], late[0], late[-1]))
    files = ", ".join(str(look.descriptors) for look in (looks[0], late[0], late[-1]))
    hours = (late[-1].at_s - late[0].at_s) / 3_600
    return (
        f"MiB of its own at the begin, in the middle and at the end {own}; {growth_mib(late) / hours:+.2f} MiB/h in the second half;"
        f" open files {files}"
    )
