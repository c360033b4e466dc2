"""Hostile input for every surface; and the driver finds what is planted."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from orchestra.testing import fuzz_sockets, fuzz_worlds
from orchestra.testing.fuzz import GROWTH_BYTES_MAX, FuzzBroken, World, fuzz
from orchestra.testing.fuzz_sockets import FrameWorld
from orchestra.testing.fuzz_surfaces import SURFACES, reader
from orchestra.transports.guard_websocket import GuardedWebsocket

pytestmark = pytest.mark.aside

INPUTS = 3_000
ANSWERS = 600
"""Of surfaces each of whose inputs takes milliseconds: a task's or a run's whole life, with its client."""


@pytest.mark.parametrize("name", list(SURFACES))
def test_every_surface_takes_or_refuses(name: str) -> None:
    inputs = ANSWERS if name.endswith("-answers") else INPUTS
    done = fuzz(SURFACES[name], inputs=inputs, seed=1)
    assert done.accepted + done.refused == inputs
    assert done.accepted > inputs // 50
    assert done.refused > inputs // 50
    assert done == attrs.evolve(
        fuzz(SURFACES[name], inputs=inputs, seed=1), growth_bytes=done.growth_bytes
    )


@pytest.mark.parametrize("name", list(SURFACES))
def test_every_valid_input_is_fed_first(name: str) -> None:
    """A corpus that is refused would be no corpus: at least most of it is taken."""
    surface = SURFACES[name]
    taken = [surface.open().feed(raw) for raw in surface.corpus()]
    assert sum(taken) * 10 >= len(taken) * 7


@attrs.define
class Crashing:
    """A world with a defect that no valid input reaches."""

    inner: World

    def feed(self, raw: bytes) -> bool:
        if b"\x00" in raw and b"\xff" not in raw:
            raise IndexError("planted")
        return self.inner.feed(raw)


@pytest.mark.parametrize("name", list(SURFACES))
def test_a_planted_crash_is_found_and_its_input_named(name: str) -> None:
    surface = SURFACES[name]
    planted = attrs.evolve(surface, open=lambda: Crashing(surface.open()))
    with pytest.raises(IndexError, match="planted") as found:
        fuzz(planted, inputs=INPUTS, seed=1)
    assert "of seed 1" in found.value.__notes__[0]


@pytest.mark.parametrize("name", ["http", "channel"])
def test_a_refusal_that_changes_something_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = fuzz_worlds.Small.ask

    async def ask(self: fuzz_worlds.Small, command: Any, *, key: str = "") -> Any:
        self.core.submit()
        return await asked(self, command, key=key)

    monkeypatch.setattr(fuzz_worlds.Small, "ask", ask)
    with pytest.raises(FuzzBroken, match="changed the state"):
        fuzz(SURFACES[name], inputs=INPUTS, seed=1)


def test_an_application_that_speaks_after_the_goodbye_of_the_guard_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(GuardedWebsocket, "send")
    with pytest.raises(ExceptionGroup) as found:
        fuzz(SURFACES["frames"], inputs=INPUTS, seed=1)
    assert found.group_contains(RuntimeError, match="after sending 'websocket.close'")


def test_frames_that_are_read_differently_in_pieces_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    received = GuardedWebsocket.data_received

    def deaf(self: GuardedWebsocket, data: bytes) -> None:
        received(self, data if len(data) > 60 else b"")

    monkeypatch.setattr(GuardedWebsocket, "data_received", deaf)
    with pytest.raises(FuzzBroken, match="in pieces"):
        fuzz(SURFACES["frames"], inputs=INPUTS, seed=1)


def test_a_code_that_the_peer_said_under_a_mask_may_be_repeated() -> None:
    mask, code = b"rtbe", 4_864
    masked = bytes(a ^ b for a, b in zip(code.to_bytes(2, "big"), mask, strict=False))
    assert not FrameWorld().feed(b"\x0b\x88\x82" + mask + masked)


def test_a_code_that_nobody_said_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_sockets, "CODES", frozenset({1_000}))
    with pytest.raises(FuzzBroken, match="ended with 1002"):
        FrameWorld().feed(b"\x08\xff\xff\xff")


def test_a_server_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: fuzz_worlds.Small, query: Any) -> Any:
        del self, query
        raise AssertionError("planted")

    monkeypatch.setattr(fuzz_worlds.Small, "answer", fail)
    with pytest.raises(AssertionError, match="planted"):
        fuzz(SURFACES["http"], inputs=100, seed=1)


def test_a_scanner_that_reads_pieces_differently_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = fuzz_worlds.scanned
    monkeypatch.setattr(fuzz_worlds, "scanned", lambda pieces: scanned(pieces[-1:]))
    with pytest.raises(FuzzBroken, match="differently"):
        fuzz(SURFACES["http"], inputs=100, seed=1)


def test_memory_that_grows_is_found() -> None:
    kept: list[bytearray] = []

    def keep(raw: bytes) -> None:
        block = bytearray(GROWTH_BYTES_MAX // 50)
        block[::4_096] = b"x" * len(block[::4_096])
        kept.append(block)

    with pytest.raises(FuzzBroken, match="memory grew"):
        fuzz(reader("leak", "", lambda: [b"x"], keep), inputs=100, seed=1)
