"""Inputs that coverage guides: parsers of the wire in short, and a defect that no blind mutation comes to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.testing.fuzz import FuzzBroken, fuzz
from orchestra.testing.fuzz_guided import fuzz_guided
from orchestra.testing.fuzz_surfaces import reader

pytestmark = pytest.mark.slow

INPUTS = 1_000
"""For each surface: a campaign feeds a hundred times as many to every one. To load instrumented modules takes longer than this."""

WIRE = ("http", "frames", "tango-answers", "json")

SEARCHED = 60_000
"""More than enough: a guided search needs some thousands, a blind one some ten millions."""

PLANTED = '''
"""A surface whose defect lies two exact bytes beside its only valid input, and one that ends its process."""

import os

from orchestra.testing.fuzz import Surface


class Planted:
    def feed(self, raw):
        if raw[:1] == b"q":
            if raw[1:2] == b"Z":
                raise IndexError("planted")
        return raw == b"valid"


class Leaving:
    def feed(self, raw):
        if raw.startswith(b"x"):
            os.abort()
        return True


SURFACES = {
    "planted": Surface("planted", "a planted defect", lambda: [b"valid"], Planted),
    "leaving": Surface("leaving", "an abort", lambda: [b"valid", b"xyz"], Leaving),
}
'''


@pytest.fixture(autouse=True)
def needs_atheris(require: Callable[..., None]) -> None:
    require(modules=("atheris",), hint="needs Linux on x86-64 (pip install '.[fuzz]')")


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of surfaces of somebody's own."""
    (tmp_path / "planted_surfaces.py").write_text(PLANTED)
    monkeypatch.syspath_prepend(tmp_path)
    return "planted_surfaces"


def test_parsers_of_the_wire_take_or_refuse_and_more_of_them_is_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["prove", "fuzz", "--engine", "atheris", "--inputs", str(INPUTS), "--json"]
    assert carry_out([*words, *(word for name in WIRE for word in ("--surface", name))]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "fuzz-guided"
    for name, (what, figure) in zip(WIRE, told["figures"], strict=False):
        assert what.startswith(f"{name}: ")
        assert figure.startswith(f"{INPUTS:,} inputs, ")
        by_corpus, _, in_the_end = figure.partition("; ")[2].partition(" edges by valid inputs, ")
        reached = int(in_the_end.partition(" ")[0].replace(",", ""))
        assert reached > int(by_corpus.replace(",", "")) > 0


def test_a_defect_behind_two_comparisons_is_found_by_guidance_alone(planted: str) -> None:
    def read(raw: bytes) -> None:
        if raw[:2] == b"qZ":
            raise IndexError("planted")
        if raw != b"valid":
            raise Malformed("no")

    assert fuzz(reader("blind", "", lambda: [b"valid"], read), inputs=SEARCHED, seed=2).refused
    with pytest.raises(FuzzBroken, match="planted") as found:
        fuzz_guided("planted", inputs=SEARCHED, seed=1, module=planted, source=planted)
    assert "b'qZ" in str(found.value)


def test_an_input_that_ends_the_process_is_named(planted: str) -> None:
    with pytest.raises(FuzzBroken, match="the process ended with") as found:
        fuzz_guided("leaving", inputs=100, seed=1, module=planted, source=planted)
    assert "crash-" in str(found.value)
    assert "b'x" in str(found.value)


def test_a_surface_that_is_not_there_is_told(planted: str) -> None:
    with pytest.raises(FuzzBroken, match="KeyError"):
        fuzz_guided("nowhere", inputs=100, seed=1, module=planted)
