"""The same seed is the same story in two interpreters; what goes by the order of a set or by an address is noticed."""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from orchestra.cli.entry import carry_out
from orchestra.errors import Malformed
from orchestra.testing import faults, schedules
from orchestra.testing.determinism import Compared, Place, Twofold
from orchestra.testing.determinism_child import Kind, this_interpreter
from orchestra.testing.proof_page import read
from orchestra.testing.simulation.campaign import drawn_shape, play_seed
from orchestra.testing.simulation.plan import BACKENDS, STORES, Backend, draw

pytestmark = pytest.mark.aside

PLACES = (Place(sys.executable, 1), Place(sys.executable, 2))

BY_HASHES = """
from importlib import import_module

run = import_module("orchestra.testing.schedules.run")

class Astray(run.Schedule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.machines = {name: self.machines[name] for name in set(self.machines)}

run.Schedule = Astray
"""
"""Trouble meets the machines in the order of a set of their names."""

BY_ADDRESSES = """
from importlib import import_module

run = import_module("orchestra.testing.schedules.run")

class Astray(run.Schedule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.machines = dict(sorted(self.machines.items(), key=lambda item: id(item[1])))

run.Schedule = Astray
"""
"""Trouble meets the machines in the order in which they lie in memory."""

WORKERS_BY_HASHES = """
from orchestra.testing.simulation.cluster import Shape

Shape.names = property(lambda shape: tuple({f"w{number}" for number in range(1, shape.workers + 1)}))
"""
"""A simulated cluster starts its workers in the order of a set of their names."""


@pytest.fixture
def astray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each Python that is started meanwhile begins with these lines."""
    (tmp_path / "sitecustomize.py").write_text(request.param)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_the_same_schedule_is_the_same_story() -> None:
    piece = Twofold("schedules", PLACES).piece(1, 100)
    assert piece.findings == ()
    assert len(set(piece.digests)) == 100, "each seed has a story of its own"
    assert piece.digests[2] == schedules.run(3, told=True).digest, "and here, by a third hashing"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_simulation_is_the_same_story(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, count = 1, 5
    plans = [
        draw(seed, faults.ALL, drawn_shape(seed).names) for seed in range(first, first + count)
    ]
    assert {plan.store for plan in plans} == set(STORES)
    monkeypatch.setenv("PYTHONWARNINGS", "error")  # what is never awaited is told too, and found
    piece = Twofold("simulations", PLACES, backend).piece(first, count)
    assert piece.findings == ()
    assert len(set(piece.digests)) == count, "each seed has a story of its own"
    assert piece.digests[0] == play_seed(first, backend=backend)[1].digest


@pytest.mark.usefixtures("astray")
@pytest.mark.parametrize(
    ("astray", "kind", "seeds"),
    [
        (BY_HASHES, "schedules", 20),
        (
            BY_ADDRESSES,
            "schedules",
            60,
        ),  # of two machines in one process or the other, chance decides each time
        (WORKERS_BY_HASHES, "simulations", 3),
    ],
    indirect=["astray"],
)
def test_what_goes_by_hashes_or_addresses_is_noticed(kind: Kind, seeds: int) -> None:
    piece = Twofold(kind, PLACES).piece(1, seeds)
    assert piece.findings, f"{seeds} seeds did not notice it"
    assert {each.why.partition(": ")[0] for each in piece.findings} == {"I21"}


def test_pieces_are_one_campaign() -> None:
    *_, alone = Twofold("schedules", PLACES).campaign(30, seed=7)
    *_, shared = Twofold("schedules", PLACES).campaign(30, seed=7, processes=2)
    assert shared == alone
    assert alone.seeds == 30


def test_a_place_without_an_orchestra_is_refused(tmp_path: Path) -> None:
    for python, told in (
        (str(tmp_path / "none"), "can not be started"),
        (_said(tmp_path, "", 1), "plays nothing: gone"),
    ):
        with pytest.raises(Malformed, match=told):
            Twofold("schedules", (PLACES[0], Place(python, 2))).piece(1, 1)


def test_a_place_with_another_orchestra_is_refused(tmp_path: Path) -> None:
    python = _said(tmp_path, '{"python":"CPython 3.99.0","libraries":{},"sources":"others"}', 0)
    with pytest.raises(Malformed, match="has another orchestra than"):
        Twofold("schedules", (PLACES[0], Place(python, 2))).piece(1, 1)


def test_a_process_that_ends_too_early_is_a_finding(tmp_path: Path) -> None:
    python = _said(tmp_path, msgspec.json.encode(this_interpreter()).decode(), 3)
    (finding,) = Twofold("schedules", (PLACES[0], Place(python, 2))).piece(5, 2).findings
    assert finding.seed == 5
    assert finding.why == f"{python} ended with 3: gone"


def _said(folder: Path, line: str, code: int) -> str:
    """What is taken for a Python, and says one line."""
    path = folder / "python"
    path.write_text(
        f"#!/bin/sh\necho '{line}'\necho gone >&2\nexit {code}\n"
        if line
        else f"#!/bin/sh\necho gone >&2\nexit {code}\n"
    )
    path.chmod(0o755)
    return str(path)


def test_the_command_tells_and_writes_what_it_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "proof.md"
    words = f"prove determinism --schedules 3 --simulations 1 --seed 4 --processes 1 --write {page} --json"
    assert carry_out([*words.split(), "--with", sys.executable]) == 0
    evidence = json.loads(capsys.readouterr().out)
    figures = dict(evidence["figures"])
    assert figures["schedules, each played in both"] == "3"
    assert figures["simulations, each played in both"] == "1"
    assert figures["libraries of different versions"] == "none"
    assert figures["first interpreter"] == f"{this_interpreter().python}, PYTHONHASHSEED=1"
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert evidence["command"].endswith(f"--schedules 3 --simulations 1 --seed 4 --with {python}")
    assert "| seeds that gave two stories, or broke something | 0 |" in read(page)["determinism"]


@pytest.mark.usefixtures("astray")
@pytest.mark.parametrize("astray", [BY_HASHES], indirect=True)
def test_the_command_names_the_seed_and_shows_where_its_stories_part(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "proof.md"
    words = ["prove", "determinism", "--schedules", "20", "--processes", "1"]
    assert carry_out([*words, "--write", str(page)]) == 1
    out = capsys.readouterr().out
    (line,) = (each for each in out.splitlines() if each.startswith("python -m orchestra "))
    assert "their stories part at line " in out
    section = read(page)["determinism"]
    assert "Broken by seed " in section
    assert " in the first, " in section
    assert carry_out(line.split()[3:]) == 1, "it is seen again"
    assert line in capsys.readouterr().out


def test_a_campaign_that_is_ended_early_tells_what_was_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> Generator[Compared]:
        yield Compared(2, "d", (this_interpreter(), this_interpreter()))
        raise KeyboardInterrupt

    monkeypatch.setattr(Twofold, "campaign", interrupted)
    assert carry_out(["prove", "determinism", "--schedules", "9", "--json"]) == 0
    evidence = json.loads(capsys.readouterr().out)
    assert dict(evidence["figures"])["schedules, each played in both"] == "2"
    assert evidence["seeds"] == "1 to 2 of schedules"
    assert "--schedules 2 --simulations 0 " in evidence["command"]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        ("--schedules 0 --simulations 0", "--schedules"),
        ("--simulations -1", "--simulations"),
        ("--processes 0", "--processes"),
    ],
)
def test_what_can_not_be_played_is_refused(
    capsys: pytest.CaptureFixture[str], words: str, where: str
) -> None:
    assert carry_out(["prove", "determinism", *words.split()]) == 2
    assert where in capsys.readouterr().err
