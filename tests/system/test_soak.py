"""Under steady work no process takes more and more of the machine; one that does is found."""

from __future__ import annotations

import json
import sys

import anyio
import pytest

from orchestra.cli.entry import carry_out
from orchestra.testing.soak import DESCRIPTORS, MIB, Look, Soak, grown, growth_mib, soak
from tests.tidy import ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.prompt]

if sys.platform != "linux":
    pytest.skip("needs Linux", allow_module_level=True)


def looks(*mib: float, descriptors: int = 0) -> list[Look]:
    """A look each second; ``descriptors`` more are open each time."""
    return [
        Look(float(at), round(each * MIB), 10 + at * descriptors) for at, each in enumerate(mib)
    ]


def test_growth_is_that_of_the_line_through_what_was_seen() -> None:
    assert growth_mib(looks(10, 11, 12, 13)) == pytest.approx(3)
    assert growth_mib(looks(10, 12, 10, 12, 10)) == pytest.approx(0)
    assert growth_mib(looks(10)) == 0


def test_what_grows_while_it_gets_warm_does_not_count() -> None:
    assert grown({"server": looks(10, 40, 70, 70, 70, 70)}) == []
    assert grown({"server": looks(10, 10, 10, 10, 11, 12)}) == [
        "server grew by 2.00 MiB, the bound is 1"
    ]


def test_files_that_stay_open_count() -> None:
    at_rest = [10.0] * 20
    assert grown({"server": looks(*at_rest, descriptors=0)}) == []
    (told,) = grown({"worker-1": looks(*at_rest, descriptors=1)})
    assert told == f"worker-1 has 9 open files and sockets more, the bound is {DESCRIPTORS}"


def test_nobody_grows_under_steady_work(capsys: pytest.CaptureFixture[str]) -> None:
    # So short that the store's page cache still fills up, by some 100 KiB a second; what hoards takes ten times as much.
    assert carry_out(["prove", "soak", "--lasts", "30s", "--growth", "5", "--json"]) == 0
    figures = dict(map(tuple, json.loads(capsys.readouterr().out)["figures"]))
    assert all(status in figures["jobs"] for status in ("completed", "failed", "cancelled"))
    assert all("MiB/h" in figures[name] for name in ("server", "worker-1", "worker-2"))


def test_a_server_that_keeps_what_is_stored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the server with a broken law is found
    hoarding = (sys.executable, "-m", "tests.system.server", "let go of what is stored")
    soaked = anyio.run(soak, Soak(lasts_s=20, growth_mib=5, server=hoarding))
    assert any(each.startswith("server grew by ") for each in soaked.broken), soaked.broken


def test_a_time_in_which_nothing_gets_warm_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(["prove", "soak", "--lasts", "1s"]) == 2
    assert "must be from 10 to" in capsys.readouterr().err
