"""The group of commands that prove: each row has its function, and what a command found is told, written and answered by a code."""

from __future__ import annotations

import inspect
import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from orchestra.cli import prove
from orchestra.cli.entry import carry_out
from orchestra.cli.prove.concluding import conclude
from orchestra.testing.proof_page import Evidence, read

EVIDENCE = Evidence("core", "Core", "orchestra prove core", (("steps", "3"),), "7", "All well.")

MODULE = "orchestra.cli.prove.sample"


def sample(*, steps: int = 3, json: bool = False) -> int:
    """Try a sample."""
    evidence = Evidence("sample", "Sample", "here", (("steps", str(steps)),), "", "Tried.")
    return conclude(evidence, proved=steps < 4, page=None, json=json)


@pytest.fixture
def with_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of the group, as another module would bring it."""
    module = ModuleType(MODULE)
    module.sample = sample  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)
    rows = {**prove.COMMANDS, "sample": ("sample", "Try a sample.")}
    monkeypatch.setattr(prove, "COMMANDS", rows)


def test_every_row_has_its_function() -> None:
    for name, (module, summary) in prove.COMMANDS.items():
        loaded = import_module(f"orchestra.cli.prove.{module}")
        function = getattr(loaded, name.replace("-", "_"))
        assert (inspect.getdoc(function) or "").splitlines()[0] == summary


@pytest.mark.usefixtures("with_sample")
@pytest.mark.parametrize("words", [["prove"], ["prove", "--help"]])
def test_the_group_says_what_there_is(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert carry_out(words) == 0
    out = capsys.readouterr().out
    assert prove.SUMMARY in out
    assert "sample: Try a sample." in out


@pytest.mark.usefixtures("with_sample")
@pytest.mark.parametrize(("steps", "code"), [("3", 0), ("4", 1)])
def test_a_command_of_the_group_is_carried_out(
    capsys: pytest.CaptureFixture[str], steps: str, code: int
) -> None:
    assert carry_out(["prove", "sample", "--steps", steps, "--json"]) == code
    assert json.loads(capsys.readouterr().out)["figures"] == [["steps", steps]]


@pytest.mark.usefixtures("with_sample")
def test_a_command_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(["prove", "sampler"]) == 2
    assert "sampler" in capsys.readouterr().err


@pytest.mark.parametrize(("proved", "code"), [(True, 0), (False, 1)])
def test_what_was_found_is_told_and_answered(
    capsys: pytest.CaptureFixture[str], proved: bool, code: int
) -> None:
    assert conclude(EVIDENCE, proved=proved, page=None, json=False) == code
    out = capsys.readouterr().out
    assert "steps  3" in out
    assert "seeds: 7\nAll well.\n" in out


def test_a_page_is_written_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    conclude(EVIDENCE, proved=True, page=None, json=True)
    assert list(tmp_path.iterdir()) == []
    conclude(EVIDENCE, proved=True, page="proof.md", json=True)
    assert list(read("proof.md")) == ["core"]
