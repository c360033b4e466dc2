"""A drive below the real SQLite store: what was flushed outlives a power cut, of the rest chance keeps some; and operations fail."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from random import Random

import apsw
import attrs

from orchestra.testing.power_loss.medium import FileSystem, Medium, Way
from orchestra.testing.power_loss.operations import NOTES, Kind, Operation
from orchestra.testing.power_loss.recorder import Fails, Fault, RecordingDisk

FLUSH_S = 0.004
"""A flush takes up to so long: sometimes more and sometimes less than the store trusts its event loop with."""

_FLUSHES = frozenset({Kind.SYNC, Kind.SYNC_NAMES})


@attrs.frozen(slots=True)
class Cut:
    """The power goes at the operation with this number, a flush not done, a write under way; what survives goes ``way``."""

    at: int
    way: Way


class Drive(RecordingDisk):
    """
    The drive of one machine, through all its starts.

    Args:
        folder: Where bytes lie; each start after a crash has a folder of its own in it, so that the dead reach nothing that counts.
        system: Which file system is on it.
        rng: Draws what survives, and how long flushes take.
        power_fails: Told when a planned cut comes.
    """

    def __init__(
        self, folder: Path, system: FileSystem, rng: Random, power_fails: Callable[[], None]
    ) -> None:
        self.operations = 0
        self.failed = 0
        """Operations that failed."""
        self.powerless = 0
        """How often the power was cut."""
        self.busy_s = 0.0
        """Spent on flushes."""
        self.cuts: list[Cut] = []
        self.faults: list[Fault] = []
        self.haunted = False
        """What is done now is done by a process that is dead and has not noticed."""
        self.life = 0
        """Grows with each death of the process."""
        self._place = folder
        self._rng = rng
        self._power_fails = power_fails
        self._told = sha256()
        first = folder / "0"
        first.mkdir()
        super().__init__(first)
        self._medium = Medium(system, self.durable)

    @property
    def fingerprint(self) -> str:
        """Of every operation so far, in order, with its bytes."""
        return self._told.hexdigest()

    def put(self, operation: Operation) -> None:
        """Do an operation, or lose the power at it."""
        if operation.kind in NOTES:
            return
        self.operations += 1
        self._told.update(str(operation).encode() + operation.content)
        cut = next((each for each in self.cuts if self.operations >= each.at), None)
        if operation.kind in _FLUSHES:
            self.busy_s += self._rng.uniform(0.0, FLUSH_S)
        if cut is None or operation.kind not in _FLUSHES:
            self._medium.apply(operation)
        if cut is not None:
            self.cuts.remove(cut)
            self.lose_power(cut.way)
            self._power_fails()

    def met(self, fails: Fails) -> bool:
        """Whether an operation has to fail; the dead meet nothing."""
        if self.haunted or not any(fault.meets(fails) for fault in self.faults):
            return False
        self.failed += 1
        return True

    def lose_power(self, way: Way) -> None:
        """The machine stops, and its drive keeps what it keeps."""
        self.powerless += 1
        image = self._medium.image(way, self._rng)
        self._move_on()
        for name, content in image.items():
            (self.folder / name).write_bytes(content)
        self.rewind()
        self._medium = Medium(self._medium.system, self.durable)

    def kill(self) -> None:
        """The process ends where it stands; the system still has all that was written."""
        before = self.folder
        self._move_on()
        for each in before.iterdir():
            if not each.name.endswith("-shm"):
                (self.folder / each.name).write_bytes(each.read_bytes())

    def _move_on(self) -> None:
        self.haunted = True
        self.life += 1
        self.folder = self._place / str(self.life)
        self.folder.mkdir()


class _Dice(apsw.VFS):
    def __init__(self, rng: Random) -> None:
        self._rng = rng
        super().__init__("orchestra-dice", "", makedefault=True)

    def xRandomness(self, numbytes: int) -> bytes:  # noqa: N802  SQLite's name
        return self._rng.randbytes(numbytes)


@contextmanager
def loaded_dice(rng: Random) -> Generator[None]:
    """What SQLite draws meanwhile is the same at every run, and with it each byte of its log."""
    # The system's layer is asked first: it begins anew when it is used for the first time in a process.
    apsw.randomness(0)
    apsw.randomness(1)
    dice = _Dice(rng)
    apsw.randomness(0)  # forget what was drawn from the system
    apsw.randomness(1)  # SQLite asks its default layer once, and counts on from there
    dice.unregister()
    try:
        yield
    finally:
        apsw.randomness(0)
