"""
Hostile input: one driver for every surface, in process and repeatable.

A surface is a row of `fuzz_surfaces.SURFACES`: a name, a corpus of valid inputs, and a world that is fed. A further one is such a row.
What must hold everywhere: whatever is fed is taken or refused; nothing else is raised; what is refused changes nothing; memory stays within
`GROWTH_BYTES_MAX`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import attrs
import psutil

GROWTH_BYTES_MAX = 64 * 1024 * 1024
"""What the process may grow by from the first tenth of the inputs to the last."""

INPUT_BYTES_MAX = 64 * 1024
"""A longer input is cut: length alone is tried by the tests of limits."""

WORLD_INPUTS = 200
"""A world is thrown away after so many inputs, so that what was accepted does not slow down what follows."""

WORDS = (
    b"null", b"true", b"-1", b"0", b"1e400", b"NaN", b"9223372036854775808", b'""', b"[]", b"{}", b"\x00", b"\xff\xfe", b"\r\n",
    b"\n", b"\r\n\r\n", b"%00", b"../", b"\\ud800", b"\xed\xa0\x80", b"'; --", b"$ne", b"{item}", b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Host: evil\r\n", b"\x1b[31m", b"[" * 40, b'"id":1', b",", b'"', b"{", b"}",
)  # fmt: skip
"""Pieces that parsers trip over."""

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63 - 1, -(2**63), 1e308, 0.1, "", "x" * 300, "\x00", "\u202e", [], {}, [[]], {"": ""}, "1.1", "last",
)  # fmt: skip
"""What takes the place of a value in a JSON tree."""


class FuzzBroken(AssertionError):
    """An input did what no input may; the message says which, and how to repeat it."""


class World(Protocol):
    """Something that is fed."""

    def feed(self, raw: bytes) -> bool:
        """
        Take one input. True when it was accepted, False when it was refused as planned.

        Anything raised is a finding; `FuzzBroken` for a law that was broken without an error.
        """
        ...


Mutation = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
"""Something hostile made of one input, with the corpus at hand."""


@attrs.frozen(slots=True)
class Surface:
    """
    One way in.

    Args:
        name: What the command line calls it.
        about: What is fed, in a few words.
        corpus: Valid inputs, from which hostile ones are made.
        open: A new world.
        mutations: Further ways to make an input hostile, which know how it is built; they are chosen as often as all others together.
    """

    name: str
    about: str
    corpus: Callable[[], Sequence[bytes]]
    open: Callable[[], World]
    mutations: tuple[Mutation, ...] = ()


@attrs.frozen(slots=True)
class Counted:
    """How many inputs a surface was fed, and how many of them were accepted; what adds up over seeds."""

    inputs: int = 0
    accepted: int = 0

    def __add__(self, other: Counted) -> Counted:
        return Counted(self.inputs + other.inputs, self.accepted + other.accepted)


@attrs.frozen(slots=True)
class Fuzzed:
    """What came of it. ``growth_bytes`` is what the process grew by after the first tenth."""

    surface: str
    inputs: int
    accepted: int
    refused: int
    growth_bytes: int


def mutate(
    rng: random.Random,
    corpus: Sequence[bytes],
    further: Sequence[Mutation] = (),
    raw: bytes | None = None,
) -> bytes:
    """A hostile relative of ``raw``, or of one valid input or two."""
    if raw is None:
        raw = rng.choice(corpus)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4, 8))):
        known = further if further and rng.getrandbits(1) else _MUTATIONS
        raw = rng.choice(known)(rng, raw, corpus)
    return raw[:INPUT_BYTES_MAX]


def _tree(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Change one node of the JSON that stands in the input, wherever it begins."""
    start = raw.find(b"{")
    try:
        found, length = (
            json.JSONDecoder().raw_decode(raw[start:].decode()) if start >= 0 else (0, 0)
        )
    except (ValueError, RecursionError):
        return _word(rng, raw, corpus)
    if not length:
        return _word(rng, raw, corpus)
    nodes: list[tuple[Any, Any]] = []
    _collect(found, nodes)
    if nodes:
        inside, key = rng.choice(nodes)
        act = rng.randrange(4)
        if act == 0:
            del inside[key]
        elif act == 1:
            inside[key] = [inside[key]]
        else:
            inside[key] = rng.choice(VALUES)
    tail = raw[start:].decode()[length:].encode()
    return raw[:start] + json.dumps(found).encode() + tail


def _collect(node: Any, nodes: list[tuple[Any, Any]]) -> None:
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        nodes.extend((members, key) for key in members)
        for each in members.values():
            _collect(each, nodes)
    elif isinstance(node, list):
        items = cast("list[Any]", node)
        nodes.extend((items, place) for place in range(len(items)))
        for each in items:
            _collect(each, nodes)


def _word(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randint(0, len(raw))
    return raw[:at] + rng.choice(WORDS) + raw[at + rng.choice((0, 0, 1, 4)) :]


def _bit(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    out = bytearray(raw or b"\0")
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def _cut(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = sorted((rng.randint(0, len(raw)), rng.randint(0, len(raw))))
    return raw[:begin] + raw[end:] if rng.getrandbits(1) else raw[:end]


def _repeat(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    begin, end = sorted((rng.randint(0, len(raw)), rng.randint(0, len(raw))))
    return raw[:end] + raw[begin:end] * rng.choice((1, 2, 30)) + raw[end:]


def _lines(rng: random.Random, raw: bytes, _: Sequence[bytes]) -> bytes:
    lines = raw.splitlines(keepends=True) or [b""]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    if rng.getrandbits(1):
        lines[at], lines[other] = lines[other], lines[at]
    else:
        lines.insert(other, lines[at])
    return b"".join(lines)


def _splice(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    other = rng.choice(corpus)
    return raw[: rng.randint(0, len(raw))] + other[rng.randint(0, len(other)) :]


_MUTATIONS: tuple[Mutation, ...] = (
    _tree,
    _tree,
    _tree,
    _word,
    _word,
    _bit,
    _cut,
    _repeat,
    _lines,
    _splice,
)


def fuzz(surface: Surface, *, inputs: int, seed: int) -> Fuzzed:
    """
    Feed a surface with its corpus, and with so many inputs in all. The same seed gives the same inputs.

    Raises:
        FuzzBroken: An input broke a law, or memory grew beyond `GROWTH_BYTES_MAX`.
        Exception: Whatever an input raised that is not planned, with a note that names the input.
    """
    rng = random.Random(f"{seed} {surface.name}")
    corpus = tuple(surface.corpus())
    process = psutil.Process()
    world = surface.open()
    accepted = begun_bytes = 0
    for number in range(inputs):
        if number % WORLD_INPUTS == 0:
            world = surface.open()
        if number == inputs // 10:
            begun_bytes = process.memory_info().rss
        raw = corpus[number] if number < len(corpus) else mutate(rng, corpus, surface.mutations)
        accepted += fed(surface, world, raw, told=f"input {number} of seed {seed}")
    growth = process.memory_info().rss - begun_bytes
    if growth > GROWTH_BYTES_MAX:
        raise FuzzBroken(f"{surface.name}: memory grew by {growth:,} bytes over {inputs} inputs")
    return Fuzzed(surface.name, inputs, accepted, inputs - accepted, growth)


def fed(surface: Surface, world: World, raw: bytes, *, told: str = "") -> bool:
    """Feed one input. Whatever is raised is a finding, and says which input it was."""
    try:
        return world.feed(raw)
    except Exception as error:
        error.add_note(f"surface {surface.name}, {told}: {raw[:1_000]!r}")
        raise
