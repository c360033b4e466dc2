"""``prove power-loss``: the power is cut after every operation of the store, and its operations fail in turn."""

from __future__ import annotations

import inspect
import os
from collections import deque
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

IMAGES_MAX = 100_000_000
STRIDE_MAX = 1_000
PROCESSES_MAX = 1_024


def power_loss(
    *,
    images: Annotated[int, Parameter(help="How many images of a disk are made at least.")] = 10_000,
    seed: Annotated[int, Parameter(help="The seed of the first round; the others count on.")] = 1,
    stride: Annotated[
        int,
        Parameter(
            help="Of the operations of a kind, one in so many fails in turn; 1 for every one."
        ),
    ] = 20,
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Cut the power after every operation of the store on its disk, and fail its operations in turn.

    The real store works on a disk that keeps what was flushed and tears, drops and reorders what was not. Whatever is left is opened
    again: all that was acknowledged must be there, whole, and the store must go on. Four ways to lose are tried as well: each must be
    noticed.
    """
    from orchestra.testing.power_loss import campaign
    from orchestra.testing.processes import pool_of

    _check(images, stride, processes)
    count = processes or os.cpu_count() or 1
    with pool_of(count) if count > 1 else nullcontext() as pool:
        cut = deque(campaign.cuts(images, seed, pool), maxlen=1)[0]
        faulted = campaign.faults(seed, stride, pool)
        lossy = campaign.controls(seed, pool)
    alone = campaign.store_alone(seed)
    told = _complaints(cut, faulted, lossy)
    if alone.lost:
        told.append(f"the store's own flushes are not enough: {alone.broken[0]}")
    for each in told:
        speech.warn(each)
    figures = (
        *_cut_figures(cut),
        *_fault_figures(faulted, stride),
        *_lossy_figures(lossy),
        (
            "without the flushes of the directory that SQLite makes of its own accord",
            f"{alone.images:,} images: {alone.lost} lost; {alone.corrupt} of a first start that never ended do not open",
        ),
    )
    evidence = Evidence(
        name="power-loss",
        title="Power loss",
        command=f"python -m orchestra prove power-loss --images {images} --seed {seed} --stride {stride}",
        figures=figures,
        seeds=f"{seed} to {seed + _rounds(cut) - 1}",
        result=told[0] if told else _RESULT,
    )
    return conclude(evidence, proved=not told, page=write, json=json)


def _complaints(
    cut: Mapping[str, Tally], faulted: Mapping[str, Faulted], lossy: Mapping[str, Tally]
) -> list[str]:
    return [
        *(str(each) for tally in cut.values() for each in tally.broken),
        *(each for loop in faulted.values() for each in loop.broken),
        *(
            f"nothing was lost and nothing corrupt: {name}"
            for name, tally in lossy.items()
            if not tally.broken
        ),
        *untried({name: tally.images for name, tally in cut.items()}),
        *untried({f"{name}, with failed operations": loop.runs for name, loop in faulted.items()}),
    ]


def _check(images: int, stride: int, processes: int | None) -> None:
    for name, number, most in (
        ("--images", images, IMAGES_MAX),
        ("--stride", stride, STRIDE_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)


_RESULT = (
    "Nothing acknowledged was lost, nothing was damaged and every store went on to work;"
    " each of the ways to lose that were tried was noticed."
)


def _rounds(cut: Mapping[str, Tally]) -> int:
    return max(tally.trials for tally in cut.values())


def _cut_figures(cut: Mapping[str, Tally]) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.scenarios import SCENARIOS
    from orchestra.testing.power_loss.trial import Tally

    total = sum(cut.values(), Tally())
    yield "scenarios recorded", f"{total.trials:,}"
    yield "operations on the disk, each followed by a cut", f"{total.operations:,}"
    yield (
        "images of a disk",
        f"{total.images:,}, of which {total.distinct:,} differ and were opened by the store",
    )
    yield "rate", f"{total.images / max(total.cpu_s, 1e-9):,.0f} images per second of CPU"
    yield "images that lack something acknowledged", f"{total.lost:,}"
    yield "images that are damaged, or do not go on", f"{total.corrupt:,}"
    for name, tally in cut.items():
        told = (inspect.getdoc(SCENARIOS[name]) or "").splitlines()[0]
        yield (
            f"{name}: {told}",
            f"{tally.images:,} images, {tally.lost} lost, {tally.corrupt} corrupt",
        )


def _fault_figures(faulted: Mapping[str, Faulted], stride: int) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.fault_loop import Faulted

    total = sum(faulted.values(), Faulted())
    yield "operations of a kind that failed in turn", one_in(stride)
    yield (
        "runs in which the n-th operation of a kind failed (read, write, full, flush, name), once or for ever",
        f"{total.runs:,}, with {total.faults:,} failed operations and {total.images:,} images at their ends",
    )
    yield (
        "of them without a clear error, with a loss, or without service on the mended disk",
        str(len(total.broken)),
    )


def _lossy_figures(lossy: Mapping[str, Tally]) -> Iterator[tuple[str, str]]:
    from orchestra.testing.power_loss.controls import CONTROLS

    for name, tally in lossy.items():
        told = (inspect.getdoc(CONTROLS[name]) or "").splitlines()[0]
        noticed = (
            f"noticed: {tally.lost:,} of {tally.images:,} images lost, {tally.corrupt:,} corrupt"
        )
        yield (
            f"{name}: {told}",
            noticed if tally.broken else f"not noticed in {tally.images:,} images",
        )
