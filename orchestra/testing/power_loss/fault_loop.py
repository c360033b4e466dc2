"""
Operations fail in turn: the n-th of a kind, once and then for ever, for every n or one in so many, until a scenario ends without a fault.

The promise: whoever asked meets a clear error, nothing acknowledged is lost, and service goes on when the disk is whole again. A flush
that failed is never made good by a later one: what it did not write may be missing for ever, as on Linux.
"""

from __future__ import annotations

import time
import traceback
from random import Random

import anyio
import attrs

from orchestra.storage.sqlite_files import check_file
from orchestra.testing.power_loss.ledger import Promise
from orchestra.testing.power_loss.medium import FileSystem, Medium, Way
from orchestra.testing.power_loss.play import NoServer, OpenStore, Play
from orchestra.testing.power_loss.recorder import Fails, Fault, Pair, RecordingDisk
from orchestra.testing.power_loss.scenarios import SCENARIOS
from orchestra.testing.power_loss.trial import open_sqlite, workshop
from orchestra.testing.power_loss.verdict import CheckFile, Inspector

NTH_MAX = 5_000
"""No scenario has so many operations of a kind."""

_ENDINGS = (Way.SYNCED, Way.ALL, Way.TORN, Way.SUBSET, Way.SUBSET)


@attrs.frozen(slots=True)
class Faulted:
    """
    What a loop came to.

    ``runs`` of scenarios met ``faults`` failed operations; ``broken`` says what broke the promise, with the line that plays it again.
    """

    runs: int = 0
    faults: int = 0
    images: int = 0
    cpu_s: float = 0.0
    broken: tuple[str, ...] = ()

    def __add__(self, other: Faulted) -> Faulted:
        return Faulted(
            self.runs + other.runs,
            self.faults + other.faults,
            self.images + other.images,
            self.cpu_s + other.cpu_s,
            self.broken + other.broken,
        )


async def fail_once(
    name: str,
    seed: int,
    fault: Fault | Pair,
    *,
    open_store: OpenStore = open_sqlite,
    check: CheckFile = check_file,
) -> Faulted:
    """Play a scenario with one fault, mend the disk, ask for more, and cut the power at the end."""
    with workshop() as folder:
        place, image = folder / "disk", folder / "image"
        place.mkdir()
        with RecordingDisk(place, fault=fault) as disk:
            play = Play(disk, open_store, seed)
            said = [await _played(play, name, forever=fault.forever)]
            disk.fault = None
            said.append(await _goes_on(play))
            problems = [each for each in said if each]
            images = 0
            if fault.met:
                inspector = Inspector(image, open_store, check)
                for system in FileSystem:
                    images += len(_ENDINGS)
                    problems += await _cut(disk, system, inspector, Random(f"end {seed}"))
    line = f"{name}, seed {seed}: {fault}"
    return Faulted(
        int(fault.met > 0), fault.met, images, 0.0, tuple(f"{line}: {each}" for each in problems)
    )


async def _played(play: Play, name: str, *, forever: bool) -> str:
    """Why the scenario broke off as it must not; empty when it ended, or the server did not start on a disk that fails for ever."""
    try:
        await SCENARIOS[name](play)
    except NoServer:
        return "" if forever else f"the server does not start: {play.failures[-1]}"
    except Exception as error:  # noqa: BLE001  # whatever it is, an error that is none of ours is a finding
        return f"no clear error: {_told(error)}"
    if play.unanswered and not forever:
        return "service did not go on after one operation had failed"
    return ""


async def _goes_on(play: Play) -> str:
    """Why the mended disk does not serve; empty when it does."""
    before = play.unanswered
    try:
        async with play.serving() as server:
            await server.submit(1)
    except NoServer:
        return f"the mended disk is not served again: {play.failures[-1]}"
    except Exception as error:  # noqa: BLE001  # whatever it is, an error that is none of ours is a finding
        return f"no clear error on a mended disk: {_told(error)}"
    return "nothing is taken on a mended disk" if play.unanswered > before else ""


def _told(error: BaseException) -> str:
    lines = traceback.format_exception(error, chain=False)
    return lines[-1].strip() if lines else repr(error)


async def _cut(
    disk: RecordingDisk, system: FileSystem, inspector: Inspector, rng: Random
) -> list[str]:
    """What is wrong with the images of a cut at the end of the tape."""
    medium, promise = Medium(system, disk.durable), Promise()
    for operation in disk.tape:
        medium.apply(operation)
        promise.apply(operation)
    problems: list[str] = []
    for way in _ENDINGS:
        found = await inspector.problems(medium.image(way, rng), promise)
        problems += [f"{system} names, {way}: {each}" for each in found]
    return problems


async def fault_loop(
    name: str,
    seed: int,
    fails: Fails,
    *,
    stride: int = 1,
    open_store: OpenStore = open_sqlite,
    check: CheckFile = check_file,
) -> Faulted:
    """
    Fail the first, second, third ... operation of a kind in a scenario, once and for ever, until it ends without a fault.

    Args:
        name: One of `SCENARIOS`.
        seed: Of everything that is drawn.
        fails: The kind of operation.
        stride: One in so many of them, from the first on; 1 for every one.
        open_store: Opens the store that is tried.
        check: That store's own check of a closed file.
    """
    began_s = time.process_time()
    total = Faulted()
    for nth in range(1, NTH_MAX, stride):
        met = 0
        for forever in (False, True):
            fault = Fault(fails, nth, forever)
            total += await fail_once(name, seed, fault, open_store=open_store, check=check)
            met += fault.met
        if not met:
            break
    return total + Faulted(cpu_s=time.process_time() - began_s)


def loop(name: str, seed: int, fails: Fails, stride: int = 1) -> Faulted:
    """As `fault_loop`, in an event loop of its own: what one process of a campaign does."""
    return anyio.run(lambda: fault_loop(name, seed, fails, stride=stride))
