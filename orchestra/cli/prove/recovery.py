"""``prove recovery``: a second trouble while the store, or its files, recover from a first."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.prove.concluding import Json, Write, conclude, one_in, untried
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence

if TYPE_CHECKING:
    from orchestra.testing.power_loss.fault_loop import Faulted
    from orchestra.testing.power_loss.trial import Tally

STRIDE_MAX = 1_000
PROCESSES_MAX = 1_024


def recovery(
    *,
    seed: Annotated[int, Parameter(help="Of everything that is drawn.")] = 1,
    stride: Annotated[
        int,
        Parameter(
            help="The first cut comes after one in so many operations that leave something unflushed, the first fault meets one in so many."
        ),
    ] = 20,
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Cut the power again while the store starts after a cut, and fail a second operation while it recovers from a first.

    All that was acknowledged, and all that the start in between has shown, must be there. Files that are kept beside the store are cut
    likewise. Ways to lose are tried as well: each must be noticed.
    """
    from orchestra.testing.power_loss import campaign
    from orchestra.testing.processes import pool_of

    for name, number, most in (
        ("--stride", stride, STRIDE_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    count = processes or os.cpu_count() or 1
    with pool_of(count) if count > 1 else nullcontext() as pool:
        cut = campaign.cuts_again(seed, stride, pool)
        failed = campaign.pairs(seed, stride, pool)
    files, lossy = campaign.files(seed), campaign.files_lost(seed)
    unflushed = campaign.unflushed_start(seed)
    noticed = {**lossy, "a start that flushes nothing": unflushed}
    told = _complaints(cut, failed, files, noticed)
    for each in told:
        speech.warn(each)
    evidence = Evidence(
        name="recovery",
        title="A second trouble while the first is mended",
        command=f"python -m orchestra prove recovery --seed {seed} --stride {stride}",
        figures=(
            *_cut_figures(cut, stride),
            *_pair_figures(failed, stride),
            *_file_figures(files, lossy, unflushed),
        ),
        seeds=str(seed),
        result=told[0] if told else _RESULT,
    )
    return conclude(evidence, proved=not told, page=write, json=json)


def _complaints(
    cut: Mapping[str, Tally],
    failed: Mapping[tuple[str, str], Faulted],
    files: Mapping[str, Tally],
    noticed: Mapping[str, Tally],
) -> list[str]:
    return [
        *(str(each) for tally in (*cut.values(), *files.values()) for each in tally.broken),
        *(each for loop in failed.values() for each in loop.broken),
        *(
            f"nothing was lost and nothing corrupt: {name}"
            for name, tally in noticed.items()
            if not tally.broken
        ),
        *untried({name: tally.trials for name, tally in cut.items()}),
        *untried({_named(kinds): loop.runs for kinds, loop in failed.items()}),
        *untried({name: tally.images for name, tally in files.items()}),
    ]


_RESULT = (
    "Nothing acknowledged was lost and nothing was damaged, whatever came second;"
    " each of the ways to lose that were tried was noticed."
)


def _cut_figures(cut: Mapping[str, Tally], stride: int) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.trial import Tally

    total = sum(cut.values(), Tally())
    yield "operations that left something unflushed, each followed by a first cut", one_in(stride)
    yield "starts after a cut, each cut again after every operation", f"{total.trials:,}"
    yield "operations of these starts", f"{total.operations:,}"
    yield (
        "images of a disk after the second cut",
        f"{total.images:,}, of which {total.distinct:,} differ and were opened by the store",
    )
    yield (
        "images that lack something acknowledged, or shown at the start between",
        f"{total.lost:,}",
    )
    yield "images that are damaged, or do not go on", f"{total.corrupt:,}"
    for name, tally in cut.items():
        yield (
            name,
            f"{tally.trials:,} starts, {tally.images:,} images, {tally.lost + tally.corrupt} broken",
        )


def _named(kinds: tuple[str, str]) -> str:
    return f"{kinds[0]}, then {kinds[1]}"


def _pair_figures(
    failed: Mapping[tuple[str, str], Faulted], stride: int
) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.fault_loop import Faulted

    total = sum(failed.values(), Faulted())
    yield "operations of a kind that failed first", one_in(stride)
    yield (
        "runs in which an operation failed, and a second one while that was mended",
        f"{total.runs:,}, with {total.faults:,} failed operations and {total.images:,} images at their ends",
    )
    for kinds, loop in failed.items():
        yield _named(kinds), f"{loop.runs:,} runs, {len(loop.broken)} broken"


def _file_figures(
    files: Mapping[str, Tally], lossy: Mapping[str, Tally], unflushed: Tally
) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.files import WAYS_TO_LOSE

    for name, tally in files.items():
        yield name, f"{tally.images:,} images, {tally.lost} lost, {tally.corrupt} torn"
    for name, tally in lossy.items():
        told = (inspect.getdoc(WAYS_TO_LOSE[name]) or "").splitlines()[0]
        yield f"{name}: {told}", _noticed(tally)
    yield "a start that flushes nothing", _noticed(unflushed)


def _noticed(tally: Tally) -> str:
    if not tally.broken:
        return f"not noticed in {tally.images:,} images"
    return f"noticed: {tally.lost:,} of {tally.images:,} images lost, {tally.corrupt:,} torn or corrupt"
