"""``prove fuzz``: hostile input for every surface."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed

INPUTS_MAX = 1_000_000_000


def fuzz(
    *,
    surface: Annotated[
        tuple[str, ...], Parameter(help="Only this one; may be repeated. [default: all]")
    ] = (),
    inputs: Annotated[int, Parameter(help="Inputs for each surface.")] = 10_000,
    seed: Annotated[int, Parameter(help="The same seed gives the same inputs.")] = 1,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Feed hostile input to every surface: it is taken or refused, nothing else.

    Nothing crashes, no request is answered with an unplanned 5xx, what is refused changes nothing, and memory stays within its bound.
    """
    from orchestra.testing.fuzz import GROWTH_BYTES_MAX
    from orchestra.testing.fuzz import fuzz as run
    from orchestra.testing.fuzz_surfaces import SURFACES
    from orchestra.testing.proof_page import Evidence

    for name in surface:
        if name not in SURFACES:
            told = f"there is no surface {name!r} (there is: {', '.join(SURFACES)})"
            raise Malformed(told, where="--surface")
    if not 1 <= inputs <= INPUTS_MAX:
        raise Malformed(f"must be from 1 to {INPUTS_MAX}, not {inputs}", where="--inputs")
    chosen = surface or tuple(SURFACES)
    done = [run(SURFACES[name], inputs=inputs, seed=seed) for name in chosen]
    figures = tuple(
        (
            f"{each.surface}: {SURFACES[each.surface].about}",
            f"{each.inputs:,} inputs, {each.accepted:,} taken, {each.refused:,} refused",
        )
        for each in done
    )
    largest = max(0, *(each.growth_bytes for each in done))
    bound = f"{largest / 2**20:.1f} MiB (bound {GROWTH_BYTES_MAX >> 20} MiB)"
    words = "".join(f" --surface {name}" for name in surface)
    evidence = Evidence(
        name="fuzz",
        title="Hostile input",
        command=f"python -m orchestra prove fuzz{words} --inputs {inputs} --seed {seed}",
        figures=(*figures, ("largest growth of memory", bound)),
        seeds=str(seed),
        result="No crash, no unplanned 5xx, nothing changed by what was refused.",
    )
    return conclude(evidence, proved=True, page=write, json=json)
