"""
The second trouble comes while the first is being mended: the power is cut again at every operation of a start after a cut, and a second
operation fails while the store recovers from a first.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

import anyio

from orchestra.errors import OrchestraError
from orchestra.ports import Store
from orchestra.storage import sqlite_files
from orchestra.storage.disk import Disk
from orchestra.storage.sqlite_files import check_file
from orchestra.testing.power_loss.fault_loop import NTH_MAX, Faulted, fail_once
from orchestra.testing.power_loss.ledger import Promise, standing
from orchestra.testing.power_loss.medium import FileSystem, Image, Medium, Way
from orchestra.testing.power_loss.operations import NOTES, Kind
from orchestra.testing.power_loss.play import STORE_NAME, OpenStore
from orchestra.testing.power_loss.recorder import Fails, Fault, Pair, RecordingDisk
from orchestra.testing.power_loss.scenarios import SCENARIOS
from orchestra.testing.power_loss.trial import (
    Cutter,
    Recording,
    Tally,
    open_sqlite,
    record,
    workshop,
)
from orchestra.testing.power_loss.verdict import Inspector, fingerprint

SECOND_MAX = 12
"""The second fault of a pair is one of the next so many operations of its kind after the first: mending takes no more."""

PAIRS = (
    (Fails.SYNC, Fails.SYNC),
    (Fails.SYNC, Fails.WRITE),
    (Fails.SYNC, Fails.READ),
    (Fails.WRITE, Fails.SYNC),
    (Fails.WRITE, Fails.FULL),
    (Fails.FULL, Fails.SYNC),
    (Fails.NAMES, Fails.NAMES),
)
"""Kinds that fail one after the other: a flush, and what mends it; a write, and what takes it back."""


def lay_out(image: Image, folder: Path) -> None:
    """Make a folder with the files of an image."""
    folder.mkdir()
    for name, content in image.items():
        (folder / name).write_bytes(content)


async def started(
    image: Image, folder: Path, open_store: OpenStore, known: Promise
) -> Recording | None:
    """
    Start a store on an image as a server does, stop it in good order, and write down what it does to the disk; None when it does not start.

    What the start showed is a promise too: it is told on the tape.
    """
    lay_out(image, folder)
    with RecordingDisk(folder) as disk:
        try:
            store = await open_store(str(folder / STORE_NAME), disk)
        except OrchestraError:
            return None  # a first start that never ended; the trial with one cut judges it
        try:
            found = await standing(store)
            if known.told is not None:
                disk.note(Kind.TOLD, found.digest, found.number)
        finally:
            await store.aclose()
        return Recording(dict(disk.durable), tuple(disk.tape))


async def cut_again(
    name: str,
    seed: int,
    *,
    stride: int = 1,
    subsets: int = 1,
    open_store: OpenStore = open_sqlite,
    open_between: OpenStore | None = None,
    systems: tuple[FileSystem, ...] = tuple(FileSystem),
    enough: int = 0,
) -> Tally:
    """
    Play a scenario, cut the power, start the store on what is left, and cut the power again after each operation of that start.

    Args:
        name: One of `SCENARIOS`.
        seed: Of everything that is drawn.
        stride: The first cut comes after one in so many of the operations that leave something unflushed, from the first of them on, each
            time another way; equal images are started from once.
        subsets: Random subsets at each of the second cuts, beside the four fixed ways.
        open_store: Opens the store that is tried.
        open_between: Opens what the first cut left; by default ``open_store``.
        systems: The file systems.
        enough: End when so many images were broken; 0 goes on to the end.
    """
    began_s = time.process_time()
    total = Tally()
    with workshop() as folder:
        place = folder / "disk"
        place.mkdir()
        recording = await record(SCENARIOS[name], seed, place, open_store=open_store)
        inspector = Inspector(folder / "image", open_store, check_file)
        numbers = itertools.count()
        for system in systems:
            for number, image, promise in first_cuts(recording, system, f"{name} {seed}", stride):
                second = folder / f"start-{next(numbers)}"
                start = await started(image, second, open_between or open_store, promise)
                if start is None or (enough and total.lost + total.corrupt >= enough):
                    continue
                story = f"{name}, started again after operation {number}"
                cutter = Cutter(story, seed, inspector, subsets, enough)
                await cutter.cut(start, system, promise)
                operations = sum(each.kind not in NOTES for each in start.tape)
                total += Tally(
                    1,
                    operations,
                    cutter.images,
                    lost=cutter.lost,
                    corrupt=cutter.corrupt,
                    broken=tuple(cutter.broken),
                )
    return total + Tally(distinct=inspector.distinct, cpu_s=time.process_time() - began_s)


def first_cuts(
    recording: Recording, system: FileSystem, seed: str, stride: int
) -> Iterator[tuple[int, Image, Promise]]:
    """
    What a cut leaves after one in so many of the operations that leave something unflushed, another way each time, with what it must hold.

    The first of them is always tried, so that no scenario is too short for a stride. Equal images come once.
    """
    rng = Random(f"again {seed} {system}")
    medium, promise = Medium(system, recording.durable), Promise()
    seen: set[bytes] = set()
    unflushed_before = 0
    for number, operation in enumerate(recording.tape):
        medium.apply(operation)
        promise.apply(operation)
        if operation.kind in NOTES or medium.is_settled():
            continue
        unflushed_before += 1
        if (unflushed_before - 1) % stride:
            continue
        image = medium.image(rng.choice(tuple(Way)), rng)
        key = fingerprint(image)
        if key not in seen:
            seen.add(key)
            yield number, image, promise


async def fail_twice(
    name: str,
    seed: int,
    kinds: tuple[Fails, Fails],
    *,
    stride: int = 1,
    open_store: OpenStore = open_sqlite,
) -> Faulted:
    """
    Fail the n-th operation of one kind and then the m-th of another that follows, for n by ``stride`` and every m, until a scenario ends
    without the first. For the promise see `fault_loop`.
    """
    began_s = time.process_time()
    total = Faulted()
    for nth in range(1, NTH_MAX, stride):
        met = False
        for second in range(1, SECOND_MAX + 1):
            pair = Pair(Fault(kinds[0], nth), Fault(kinds[1], second))
            total += await fail_once(name, seed, pair, open_store=open_store)
            met = met or pair.first.met > 0
            if not pair.second.met:
                break
        if not met:
            break
    return total + Faulted(cpu_s=time.process_time() - began_s)


def again(name: str, seed: int, stride: int, subsets: int = 1) -> Tally:
    """As `cut_again`, in an event loop of its own: what one process of a campaign does."""
    return anyio.run(partial(cut_again, name, seed, stride=stride, subsets=subsets))


def twice(name: str, seed: int, kinds: tuple[Fails, Fails], stride: int) -> Faulted:
    """As `fail_twice`, in an event loop of its own: what one process of a campaign does."""
    return anyio.run(partial(fail_twice, name, seed, kinds, stride=stride))


def unflushed(seed: int) -> Tally:
    """A start after a cut that moves the log into the file and flushes nothing: the second cut must be noticed."""

    async def open_between(path: str, disk: Disk) -> Store:
        with mock.patch.dict(sqlite_files.SYNCHRONOUS, full="OFF"):
            return await open_sqlite(path, disk)

    async def tried() -> Tally:
        return await cut_again("submits", seed, stride=8, open_between=open_between, enough=3)

    return anyio.run(tried)
