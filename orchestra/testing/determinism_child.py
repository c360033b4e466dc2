"""
The process in which `determinism` plays seeds: ``python -m`` this, with the words that `determinism.heard` gives it.

It tells a line of JSON about itself, and then one for each seed.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, get_args

import attrs
import msgspec

import orchestra
from orchestra.errors import Defect
from orchestra.testing import schedules
from orchestra.testing.diagram import Line
from orchestra.testing.processes import ORPHANED
from orchestra.testing.simulation.campaign import play_seed
from orchestra.testing.simulation.plan import BACKENDS, Backend
from orchestra.testing.simulation.simulation import Failed

Kind = Literal["schedules", "simulations"]
KINDS: tuple[Kind, ...] = get_args(Kind)

LIBRARIES = (
    "anyio",
    "apsw",
    "attrs",
    "h11",
    "httpcore",
    "httpx",
    "msgspec",
    "starlette",
    "trio",
    "uvicorn",
    "wsproto",
)
"""What simulated processes run on, or their rows are made with; apsw brings its own SQLite."""


@attrs.frozen(slots=True)
class Interpreter:
    """Where seeds are played: the version of Python, those of the libraries, and a digest of the sources of orchestra."""

    python: str
    libraries: Mapping[str, str]
    sources: str


@attrs.frozen(slots=True)
class Outcome:
    """
    What a seed came to: a digest of its story and its rows, or of the story of what it ``broke``.

    ``lines`` is the story, when that was asked for.
    """

    seed: int
    digest: str
    broke: str = ""
    lines: tuple[Line, ...] = ()


def this_interpreter() -> Interpreter:
    """The one that runs this."""
    versions = {name: _version(name) for name in LIBRARIES}
    told = sha256()
    folder = Path(orchestra.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        told.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return Interpreter(
        f"{platform.python_implementation()} {platform.python_version()}",
        versions,
        told.hexdigest(),
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _schedule(seed: int) -> Outcome:
    try:
        done = schedules.run(seed, told=True)
    except (AssertionError, Defect) as error:
        told = isinstance(error, schedules.Violated)
        return _broken(seed, str(error), schedules.play(seed)[0] if told else ())
    return Outcome(seed, done.digest, lines=done.lines)


def _simulation(seed: int, backend: Backend) -> Outcome:
    try:
        done = play_seed(seed, backend=backend)[1]
    except Failed as failed:
        return _broken(seed, f"{type(failed.cause).__name__}: {failed.cause}", failed.lines)
    return Outcome(seed, done.digest, lines=done.lines)


def _broken(seed: int, why: str, lines: tuple[Line, ...]) -> Outcome:
    return Outcome(seed, sha256(repr((why, lines)).encode()).hexdigest(), why, lines)


def main(words: Sequence[str]) -> None:
    """Play so many seeds from the first on, and tell what they came to; their stories too, if they are ``told``."""
    kind, backend, first, count, told = words
    chosen = BACKENDS[BACKENDS.index(backend)]
    threading.Thread(target=_end_with_the_campaign, name="end with it", daemon=True).start()
    _tell(this_interpreter())
    for seed in range(int(first), int(first) + int(count)):
        outcome = _schedule(seed) if kind == "schedules" else _simulation(seed, chosen)
        _tell(outcome if told else attrs.evolve(outcome, lines=()))


def _tell(what: Interpreter | Outcome) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(what) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_the_campaign() -> None:
    # Nothing is ever said there; a campaign that is killed closes it. Not by `sys.stdin`, whose lock would be held at the end.
    os.read(0, 1)
    os._exit(ORPHANED)


if __name__ == "__main__":
    main(sys.argv[1:])
