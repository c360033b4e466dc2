"""``prove explore``: every state of small worlds."""

from __future__ import annotations

import os
import time
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.explore import LARGE, WORLDS, Explored, explored_all, never_taken
from orchestra.testing.explore.promela import SpinMissing, ask_search, ask_spin
from orchestra.testing.proof_page import Evidence

STATES_MAX = 1_000_000_000
PROCESSES_MAX = 1_024


def explore(
    *,
    world: Annotated[
        str, Parameter(help="One world by its name; all small ones without, `large` adds those.")
    ] = "",
    states: Annotated[
        int, Parameter(help="How many are visited at most, in each world.")
    ] = 1_000_000,
    processes: Annotated[
        int | None, Parameter(help="How many worlds at the same time. [default: one for each cpu]")
    ] = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Visit every state that the core can come to in small worlds: any order, any loss, any crash.

    Breadth-first over the real core and the real far end of a worker, every invariant at every step. What breaks one is shown with the
    shortest way there. From every state work must be able to end, and every row of the tables has to be taken by some step.
    """
    for name, number, most in (
        ("--states", states, STATES_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    known = {**WORLDS, **LARGE}
    if world not in ("", "large", *known):
        raise Malformed(
            f"there is no world {world!r}",
            where="--world",
            remedy=f"choose one of {', '.join(known)}, or large",
        )
    chosen = (
        [*LARGE.values(), *WORLDS.values()]
        if world == "large"
        else list(WORLDS.values())
        if not world
        else [known[world]]
    )
    began_s = time.monotonic()
    found: list[Explored] = []
    for each in explored_all(chosen, states_max=states, processes=processes or os.cpu_count() or 1):
        speech.say(f"{each.name}: {each.states:,} states in {each.seconds:,.0f} s")
        found.append(each)
        if each.broken:
            break
    found.sort(key=lambda each: [bounds.name for bounds in chosen].index(each.name))
    seconds = time.monotonic() - began_s
    broken = next((each for each in found if each.broken), None)
    if broken is not None:
        if not json:
            _show(broken)
        evidence = _evidence(found, (), world, states, seconds=seconds, opinion="not asked")
        return conclude(evidence, proved=False, page=write, json=json)
    is_all = world in ("", "large")
    missing = never_taken(found) if is_all else ()
    agrees, opinion = _second_opinion() if is_all else (True, "not asked for one world alone")
    evidence = _evidence(found, missing, world, states, seconds=seconds, opinion=opinion)
    return conclude(evidence, proved=not missing and agrees, page=write, json=json)


def _second_opinion() -> tuple[bool, str]:
    """Whether spin's model of the lease and the fence says what the search says, and in words."""
    try:
        spin, search = ask_spin(), ask_search()
    except SpinMissing as missing:
        return True, f"not asked: {missing}"
    if spin.broken or spin.combinations != search.combinations:
        apart = spin.combinations ^ search.combinations
        return False, f"differs in {len(apart)} combinations" if apart else "finds a violation"
    told = f"agrees: {spin.states:,} states, the same {len(spin.combinations)} combinations"
    return True, f"{told} of task, rows and living work"


def _show(explored: Explored) -> None:
    for number, told in enumerate(explored.path, 1):
        speech.put(f"{number:>4}  {speech.clean(told)}")
    speech.put(speech.clean(explored.broken))
    speech.put(f"again: python -m orchestra prove explore --world {explored.name}")


def _never(missing: tuple[str, ...], *, counted: bool) -> str:
    """One world alone, or a search that ended early, takes but some of the rows."""
    return (", ".join(missing) or "none") if counted else "not counted"


def _evidence(
    found: list[Explored],
    missing: tuple[str, ...],
    world: str,
    states: int,
    *,
    seconds: float,
    opinion: str,
) -> Evidence:
    known = {**WORLDS, **LARGE}
    rows = [
        (
            f"{each.name}: {known[each.name].about}",
            f"{each.states:,} states, {each.steps:,} steps, depth {each.depth}"
            + ("" if each.complete else ", not all"),
        )
        for each in found
    ]
    total = sum(each.states for each in found)
    broken = [f"{each.name}: {each.broken.splitlines()[0]}" for each in found if each.broken]
    figures = (
        ("states, machines that are alike counted once", f"{total:,}"),
        ("steps between them", f"{sum(each.steps for each in found):,}"),
        ("different steps of the core", f"{sum(each.core_steps for each in found):,}"),
        ("worlds searched whole", f"{sum(each.complete for each in found)} of {len(found)}"),
        (
            "rows of the tables never taken",
            _never(missing, counted=world in ("", "large") and not broken),
        ),
        ("rate", f"{total / max(seconds, 1e-9):,.0f} states/s"),
        ("spin, of the world silent", opinion),
        ("violations", f"{len(broken)}"),
        *rows,
    )
    named = f" --world {world}" if world else ""
    return Evidence(
        name="explore",
        title="Every state of small worlds",
        command=f"python -m orchestra prove explore{named} --states {states}",
        figures=figures,
        seeds="",
        result=f"Broken in the world {broken[0]}"
        if broken
        else (
            "No step broke an invariant, and from every state of a world that was searched whole all jobs can still end"
            " without any further trouble."
        ),
    )
