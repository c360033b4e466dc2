"""``prove fuzz``: hostile input for every surface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed

if TYPE_CHECKING:
    from orchestra.testing.fuzz import Fuzzed

INPUTS_MAX = 1_000_000_000

Figures = list[tuple[str, str]]


def fuzz(
    *,
    surface: Annotated[
        tuple[str, ...], Parameter(help="Only this one; may be repeated. [default: all]")
    ] = (),
    inputs: Annotated[int, Parameter(help="Inputs for each surface.")] = 10_000,
    seed: Annotated[int, Parameter(help="The same seed gives the same inputs.")] = 1,
    engine: Annotated[
        Literal["drawn", "atheris"],
        Parameter(help="Inputs are drawn, or (atheris) guided by what code they reach."),
    ] = "drawn",
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Feed hostile input to every surface: it is taken or refused, nothing else.

    Nothing crashes, no request is answered with an unplanned 5xx, what is refused changes nothing, and memory stays within its bound.
    With ``--engine atheris`` the same seed begins the same search, which then goes where new code is reached.
    """
    from orchestra.testing.fuzz import GROWTH_BYTES_MAX, FuzzBroken
    from orchestra.testing.fuzz_surfaces import SURFACES
    from orchestra.testing.proof_page import Evidence

    for name in surface:
        if name not in SURFACES:
            told = f"there is no surface {name!r} (there is: {', '.join(SURFACES)})"
            raise Malformed(told, where="--surface")
    if not 1 <= inputs <= INPUTS_MAX:
        raise Malformed(f"must be from 1 to {INPUTS_MAX}, not {inputs}", where="--inputs")
    chosen = surface or tuple(SURFACES)
    guided = engine == "atheris"
    figures: Figures = []
    done: list[Fuzzed] = []
    broken = ""
    try:
        (_guided if guided else _drawn)(chosen, inputs, seed, figures, done)
    except FuzzBroken as error:
        broken = str(error)
        speech.warn(broken)
    largest = max([0, *(each.growth_bytes for each in done)])
    bound = f"{largest / 2**20:.1f} MiB (bound {GROWTH_BYTES_MAX >> 20} MiB)"
    words = "".join(f" --surface {name}" for name in surface)
    words += " --engine atheris" if guided else ""
    evidence = Evidence(
        name="fuzz-guided" if guided else "fuzz",
        title="Hostile input, guided by coverage" if guided else "Hostile input",
        command=f"python -m orchestra prove fuzz{words} --inputs {inputs} --seed {seed}",
        figures=(
            *figures,
            ("inputs in all", f"{sum(each.inputs for each in done):,}"),
            ("largest growth of memory", bound),
        ),
        seeds=str(seed),
        result=f"Broken: {broken.splitlines()[0]}" if broken else _RESULT,
    )
    return conclude(evidence, proved=not broken, page=write, json=json)


_RESULT = "No crash, no unplanned 5xx, nothing changed by what was refused."


def _row(each: Fuzzed) -> tuple[str, str]:
    from orchestra.testing.fuzz_surfaces import SURFACES

    told = f"{each.inputs:,} inputs, {each.accepted:,} taken, {each.refused:,} refused"
    return f"{each.surface}: {SURFACES[each.surface].about}", told


def _drawn(
    chosen: Sequence[str], inputs: int, seed: int, figures: Figures, done: list[Fuzzed]
) -> None:
    from orchestra.testing.fuzz import fuzz as run
    from orchestra.testing.fuzz_surfaces import SURFACES

    for name in chosen:
        done.append(run(SURFACES[name], inputs=inputs, seed=seed))
        figures.append(_row(done[-1]))
        speech.say(": ".join(figures[-1]))


def _guided(
    chosen: Sequence[str], inputs: int, seed: int, figures: Figures, done: list[Fuzzed]
) -> None:
    from orchestra.testing.fuzz_guided import fuzz_guided

    for name in chosen:
        found = fuzz_guided(name, inputs=inputs, seed=seed)
        what, told = _row(found.fuzzed)
        reached = f"; {found.edges_corpus:,} edges by valid inputs, {found.edges:,} in the end"
        done.append(found.fuzzed)
        figures.append((what, told + reached))
        speech.say(": ".join(figures[-1]))
