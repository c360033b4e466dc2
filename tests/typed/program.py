"""
A user's program, for the type checkers and for the tests: what they believe of its results is what comes.

pyright checks it together with the library. A line that has to be refused says so with an ignored error, and pyright reports an
ignore that is not needed. mypy checks the types of results in it; it takes items of any type.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_type

import attrs

import orchestra
from orchestra.calls import Calls

DAY = datetime.date(2026, 2, 28)


@attrs.frozen
class Star:
    name: str
    flux: float
    image: Path
    seen: datetime.date = DAY


@dataclass
class Catalogue:
    stars: list[Star]
    raw: bytes
    brightest: dict[int, Star]


app = orchestra.App()


@app.task
async def render(frame: int) -> str:
    return f"{frame:04}"


@app.task(retries=3, timeout="10m")
async def observe(ctx: orchestra.Context, image: Path) -> Star:
    return Star(image.stem, len(image.stem), image)


@app.task
def raw(text: str, times: int = 1) -> bytes:
    return text.encode() * times


@app.task(retries=1)
def measure(ctx: orchestra.Context, frame: int) -> float:
    return float(frame)


@app.task
def count(frame: int) -> int:
    return frame


@app.task
def collect(stars: list[Star], raw: bytes) -> Catalogue:
    return Catalogue(stars, raw, dict(enumerate(stars)))


@app.task
def folder(catalogue: Catalogue) -> Path:
    return catalogue.stars[0].image.parent


@app.task
async def nothing() -> None:
    return None


@app.task
def whatever(anything: Any, second: int = 0) -> object:
    return anything


def calls() -> None:
    assert_type(render.map(range(3)), Calls[str])
    assert_type(observe.map([Path("a")]), Calls[Star])
    assert_type(raw.map(["a"], times=2), Calls[bytes])
    assert_type(raw.map(render.map(range(3))), Calls[bytes])
    assert_type(measure.map(count.map(range(3))), Calls[float])
    assert_type(measure.call(3).after(nothing.call()), Calls[float])
    assert_type(render.options_with(retries=2).map([1]), Calls[str])
    assert_type(nothing.call(), Calls[None])
    assert_type(raw("a"), bytes)
    assert_type(whatever.map([1, "a"]), Calls[object])
    render.map(["a"])  # pyright: ignore[reportArgumentType]  a text is no number
    measure.map(["a"])  # pyright: ignore[reportCallIssue, reportArgumentType]  nor past the context
    raw.map(count.map([1]))  # pyright: ignore[reportArgumentType]  a result of another type
    nothing.map([1])  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  it takes no argument


async def play(client: orchestra.Client) -> None:
    """Types and values, of one stage."""
    assert_type(await render(1), str)
    frames = await client.submit(render.map(range(3)), name="frames", key="frames")
    assert_type(frames, orchestra.Job[str])
    assert_type(await frames.results(), list[str])
    assert await frames.results() == ["0000", "0001", "0002"]
    star = await client.submit(observe, Path("m/vega"))
    assert_type(await star.result(), Star)
    assert await star.result() == Star("vega", 4.0, Path("m/vega"))
    done = await client.submit(nothing)
    assert_type(done, orchestra.Job[None])
    assert await done.results() == [None]
    as_it_is: orchestra.Job[object] = star
    assert await as_it_is.done()


async def play_stages(client: orchestra.Client) -> None:
    """Types and values, of several stages and of a job that is found again."""
    stars = observe.map([Path("m/vega"), Path("m/sirius")])
    job = await client.submit(folder.call(collect.call(stars, raw.call("\0a"))))
    assert_type(await job.results(), list[Path])
    assert await job.results() == [Path("m")]
    vega, sirius = Star("vega", 4.0, Path("m/vega")), Star("sirius", 6.0, Path("m/sirius"))
    assert_type(await job.results(observe), list[Star])
    assert await job.results(observe) == [vega, sirius]
    assert await job.results(raw) == [b"\0a"]
    assert_type(await job.results("collect"), list[Any])
    assert await job.results("collect") == [Catalogue([vega, sirius], b"\0a", {0: vega, 1: sirius})]
    found = await client.job(job.id)
    assert_type(found, orchestra.Job[Any])
    assert await found.results() == ["m"]  # who found it does not know what it ran
    assert_type(await found.results(folder), list[Path])
    assert await found.results(folder) == [Path("m")]


def play_sync(client: orchestra.SyncClient) -> None:
    """The same without an event loop."""
    job = client.submit(measure.map(count.map(range(2))))
    assert_type(job, orchestra.SyncJob[float])
    assert_type(job.results(), list[float])
    assert [repr(result) for result in job.results()] == ["0.0", "1.0"]
    assert_type(job.results(count), list[int])
    assert [repr(result) for result in job.results(count)] == ["0", "1"]
    assert_type(client.submit(raw, "a").result(), bytes)
