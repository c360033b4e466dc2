"""
The same seed, the same story (I21): each is played in two places, and what it came to in both is compared.

The two hash strings by different seeds, and what they make lies at different addresses; they may be of different versions of Python, with
different versions of libraries.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import closing
from hashlib import sha256
from itertools import zip_longest
from types import MappingProxyType

import attrs
import msgspec

from orchestra.errors import Malformed
from orchestra.testing.determinism_child import Interpreter, Kind, Outcome
from orchestra.testing.diagram import Line
from orchestra.testing.processes import in_pieces
from orchestra.testing.simulation.plan import Backend

CHILD = "orchestra.testing.determinism_child"
WHERE = "--with"

CHUNKS: Mapping[Kind, int] = MappingProxyType({"schedules": 500, "simulations": 10})
"""How many a process plays in one go: some seconds, so that its start hardly counts."""

TAIL_CHARACTERS = 3_000
"""The last words of a process that came to no good end."""

SHORT = 16
"""Digits of a digest that are shown: two stories that differ never have so many in common."""


@attrs.frozen(slots=True)
class Place:
    """Where seeds are played: the path of a Python in which orchestra is installed, and the seed by which it hashes strings."""

    python: str
    hash_seed: int


@attrs.frozen(slots=True)
class Finding:
    """
    A seed that came to two things or broke something, and what.

    ``first`` is the seed of the piece: what goes by addresses may depend on what was played before in the same processes.
    """

    first: int
    seed: int
    why: str


@attrs.frozen(slots=True)
class Piece:
    """Some seeds, played in both places."""

    interpreters: tuple[Interpreter, Interpreter]
    digests: tuple[str, ...]
    """What each seed came to, in the first place."""
    findings: tuple[Finding, ...]


@attrs.frozen(slots=True)
class Compared:
    """What so many ``seeds`` came to; ``digest`` is of all that they came to in the first place, in their order."""

    seeds: int = 0
    digest: str = ""
    interpreters: tuple[Interpreter, ...] = ()
    findings: tuple[Finding, ...] = ()

    def __add__(self, piece: Piece) -> Compared:
        digest = self.digest
        for each in piece.digests:
            digest = sha256(f"{digest}{each}".encode()).hexdigest()
        seeds, findings = self.seeds + len(piece.digests), self.findings + piece.findings
        return Compared(seeds, digest, piece.interpreters, findings)


@attrs.frozen(slots=True)
class Twofold:
    """
    What is played, and where.

    Args:
        kind: Schedules of the core, or simulations of the whole system.
        places: The two.
        backend: On whose event loops simulations run.
    """

    kind: Kind
    places: tuple[Place, Place]
    backend: Backend = "asyncio"

    def campaign(self, seeds: int, *, seed: int = 1, processes: int = 1) -> Generator[Compared]:
        """
        Play ``seeds`` seeds from ``seed`` on in both places; yields the sum so far, and ends after a piece in which something was found.

        Raises:
            Malformed: In one of the places there is no orchestra, or not the one of the other.
        """
        chunk = min(CHUNKS[self.kind], -(-seeds // processes))
        after = seed + seeds
        pieces = [(first, min(chunk, after - first)) for first in range(seed, after, chunk)]
        total = Compared()
        with closing(in_pieces(self.piece, pieces, processes)) as played:
            for _, _, piece in played:
                total += piece
                yield total
                if total.findings:
                    return

    def piece(self, first: int, count: int) -> Piece:
        """Play ``count`` seeds from ``first`` on in both places. Raises as `campaign`."""
        one, other = (_heard(self, place, first, count) for place in self.places)
        if one.interpreter.sources != other.interpreter.sources:
            told = f"{self.places[1].python} has another orchestra than {self.places[0].python}"
            raise Malformed(told, where=WHERE, remedy="install the same there")
        found = [*one.complaints, *other.complaints]
        for ours, theirs in zip(one.outcomes, other.outcomes, strict=False):
            found += _compared(first, ours, theirs)
        digests = tuple(each.digest for each in one.outcomes)
        return Piece((one.interpreter, other.interpreter), digests, tuple(found))

    def parting(self, first: int, seed: int) -> str:
        """Where the stories of a seed part when all from ``first`` up to it are played; empty when they come to the same."""
        count = seed - first + 1
        one, other = (_heard(self, place, first, count, told=True) for place in self.places)
        if min(len(one.outcomes), len(other.outcomes)) < count:
            return "not both come to its end"
        ours, theirs = one.outcomes[-1], other.outcomes[-1]
        if ours.digest == theirs.digest:
            return ""
        for number, lines in enumerate(zip_longest(ours.lines, theirs.lines), start=1):
            if lines[0] != lines[1]:
                here, there = map(_shown, lines)
                return f"their stories part at line {number}:\n  {here}\n  {there}"
        return (
            "their stories are the same; their last rows, or what was done to their drives, are not"
        )


def _compared(first: int, ours: Outcome, theirs: Outcome) -> Generator[Finding]:
    if ours.digest != theirs.digest:
        told = f"{ours.digest[:SHORT]} in the first, {theirs.digest[:SHORT]} in the second"
        yield Finding(first, ours.seed, f"I21: it gives another story: {told}")
    elif ours.broke:
        yield Finding(first, ours.seed, ours.broke)


def _shown(line: Line | None) -> str:
    return "(the end)" if line is None else f"{line.at_ms:,} ms, {line.who}: {line.what}"


@attrs.frozen(slots=True)
class _Heard:
    interpreter: Interpreter
    outcomes: tuple[Outcome, ...]
    complaints: tuple[Finding, ...]


def _heard(asked: Twofold, place: Place, first: int, count: int, *, told: bool = False) -> _Heard:
    """Play seeds in one place."""
    words = (asked.kind, asked.backend, str(first), str(count), "told" if told else "")
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(  # noqa: S603 - a Python that the caller named, and this very package
                [place.python, "-m", CHILD, *words],
                env={**os.environ, "PYTHONHASHSEED": str(place.hash_seed)},
                stdin=subprocess.PIPE,  # says nothing, and ends with this process: then the child does too
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as problem:
            raise Malformed(f"{place.python} can not be started: {problem}", where=WHERE) from None
        with child:
            output: bytes = child.stdout.read() if child.stdout is not None else b""
            code = child.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-TAIL_CHARACTERS:].strip()
    about, *lines = output.splitlines() or [b""]
    if not about:
        remedy = "install this orchestra there"
        raise Malformed(f"{place.python} plays nothing: {said}", where=WHERE, remedy=remedy)
    outcomes = tuple(msgspec.json.decode(line, type=Outcome) for line in lines)
    complaints: tuple[Finding, ...] = ()
    if code or said:
        reached = min(first + len(outcomes), first + count - 1)
        complaints = (Finding(first, reached, f"{place.python} ended with {code}: {said}"),)
    return _Heard(msgspec.json.decode(about, type=Interpreter), outcomes, complaints)
