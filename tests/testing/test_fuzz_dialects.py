"""The driver finds what is planted in TANGO's interfaces and in a worker of Flamenco, and in what reads the answers of their far ends."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import IO, Any

import pytest

from orchestra.dialects import flamenco_worker_offers, flamenco_worker_reports, tango_runs
from orchestra.dialects.far_calls import FarReply
from orchestra.dialects.flamenco_worker_programs import Programs
from orchestra.dialects.flamenco_worker_runs import Runs
from orchestra.dialects.tango_calls import Calls
from orchestra.engines import member_run
from orchestra.errors import Unavailable
from orchestra.testing import fuzz_worlds
from orchestra.testing.fuzz import FuzzBroken, fuzz
from orchestra.testing.fuzz_answers import answer, named
from orchestra.testing.fuzz_surfaces import SURFACES
from orchestra.transports import far_files, far_line

pytestmark = pytest.mark.aside

INPUTS = 3_000


def found_in(name: str) -> pytest.ExceptionInfo[FuzzBroken]:
    """What the driver finds in a surface."""
    with pytest.raises(FuzzBroken) as found:
        fuzz(SURFACES[name], inputs=INPUTS, seed=1)
    return found


@pytest.mark.parametrize("name", ["tango", "tango-member"])
def test_a_refusal_that_changes_something_is_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What these refuse they have asked about before."""
    answered = fuzz_worlds.Small.answer

    async def answer(self: fuzz_worlds.Small, query: Any) -> Any:
        self.core.submit()
        return await answered(self, query)

    monkeypatch.setattr(fuzz_worlds.Small, "answer", answer)
    assert found_in(name).match("changed the state")


def test_a_worker_that_changes_something_and_then_refuses_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    noted = flamenco_worker_offers.read_offer

    def note_first(reply: FarReply) -> Any:
        worlds[0].core.submit()
        return noted(reply)

    worlds: list[fuzz_worlds.Small] = []
    made = fuzz_worlds.Small.__init__

    def keep(self: fuzz_worlds.Small) -> None:
        worlds[:] = [self]
        made(self)

    monkeypatch.setattr(fuzz_worlds.Small, "__init__", keep)
    monkeypatch.setattr("orchestra.dialects.flamenco_worker_pull.read_offer", note_first)
    assert found_in("flamenco-answers").match("changed the state")


@pytest.mark.parametrize("name", ["flamenco-worker", "flamenco-answers"])
@pytest.mark.parametrize(
    ("guard", "told"),
    [("find", "which nobody allowed"), ("check", "which lies elsewhere|code from afar")],
)
def test_a_worker_that_runs_what_nobody_allowed_is_found(
    name: str, guard: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lax(_: Programs, *words: Any) -> Any:
        return words[-1] or words[0]

    monkeypatch.setattr(Programs, guard, lax)
    assert found_in(name).match(told)


def test_a_worker_that_answers_500_without_a_plan_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Runs, given: Any) -> Generator[Any, Any, Any]:
        yield from ()
        del self, given
        raise Unavailable("planted")

    monkeypatch.setattr(Runs, "begin", begin)
    assert found_in("flamenco-worker").match("answered with 503")


def test_a_worker_that_does_not_come_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes every answer but the planned one for the manager's being busy, for ever."""
    monkeypatch.setattr(flamenco_worker_reports, "TRIES_MAX", 10**6)
    monkeypatch.setattr(flamenco_worker_reports, "PAUSE_MS_MAX", 10**9)
    monkeypatch.setattr(flamenco_worker_reports, "PAUSE_MS", 10**9)
    assert found_in("flamenco-answers").match("never asks for the next task")


def test_a_file_of_an_archive_that_lies_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(archive: IO[bytes], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".." / ".." / "planted").write_bytes(archive.read(1))

    monkeypatch.setattr(far_files, "unpack", unpack)
    assert found_in("flamenco-answers").match("lies beside the folder")


def test_an_answer_that_people_are_shown_as_it_came_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(member_run, "text_of", lambda reply: reply.body.decode(errors="replace"))
    assert found_in("tango-answers").match("people are shown")


def test_an_end_that_is_reported_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(*_: Any) -> Generator[Any, Any, None]:
        yield from ()

    monkeypatch.setattr(tango_runs, "_settle", forget)
    assert found_in("tango-answers").match("reported again")


def test_an_error_of_the_client_that_nobody_expects_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = far_line._read

    async def fragile(client: Any, target: str) -> FarReply:
        reply = await read(client, target)
        return FarReply(reply.status, reply.body.decode("ascii").encode())

    monkeypatch.setattr(far_line, "_read", fragile)
    with pytest.raises(UnicodeDecodeError) as found:
        fuzz(SURFACES["tango-answers"], inputs=INPUTS, seed=1)
    assert "of seed 1" in found.value.__notes__[-1]


def test_a_crash_of_a_member_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def resume(self: Calls, request: Any) -> Any:
        del self
        return {}[request.target]

    monkeypatch.setattr(Calls, "resume", resume)
    with pytest.raises(KeyError):
        fuzz(SURFACES["tango-member"], inputs=INPUTS, seed=1)


@pytest.mark.parametrize("name", ["flamenco-answers", "tango-answers"])
def test_an_answer_to_a_call_that_is_never_made_is_not_taken(name: str) -> None:
    (raw,) = named("nowhere", answer(b"{}"))
    assert not SURFACES[name].open().feed(raw)
