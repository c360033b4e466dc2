"""The checker agrees with a search through all orders, refuses what can not have been, and finds a server that answers too early."""

from __future__ import annotations

import json
import math
import sys
from itertools import permutations
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.cli.entry import carry_out
from orchestra.testing.linearizability import (
    ABSENT,
    History,
    Load,
    Operation,
    Server,
    check,
    job_model,
    record,
)
from orchestra.testing.linearizability import checker as checker_module
from orchestra.testing.linearizability.checker import Undecided
from tests.tidy import ROOT

VERBS = ("submit", "view", "pause", "resume", "cancel", "retry", "report")


def operation(verb: str, outcome: str | None, began_s: float, ended_s: float) -> Operation:
    argument = "1 completed" if verb == "report" else ""
    ended_s = math.inf if outcome is None else ended_s
    return Operation(0, verb, argument, outcome, began_s, ended_s)


def outcomes(verb: str) -> tuple[str | None, ...]:
    return {
        "submit": ("j", None),
        "view": ("open", "paused", "cancelled", "completed", "cancelling", "failed"),
        "report": ("taken", "ignored", None),
    }.get(verb, ("done", "refused", None))


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    verb = draw(st.sampled_from(VERBS))
    began_s = draw(st.integers(0, 12))
    lasts_s = draw(st.integers(1, 6))
    return operation(verb, draw(st.sampled_from(outcomes(verb))), began_s, began_s + lasts_s)


def explained_by_some_order(history: History) -> bool:
    """The definition, word for word: any subset of the unanswered ones, any order that keeps what ended before what began."""
    answered = [each for each in history if each.outcome is not None]
    open_ended = [each for each in history if each.outcome is None]
    for taken in range(2 ** len(open_ended)):
        chosen = answered + [each for at, each in enumerate(open_ended) if taken >> at & 1]
        for order in permutations(chosen):
            in_time = all(
                not later.ended_s < earlier.began_s
                for at, earlier in enumerate(order)
                for later in order[at + 1 :]
            )
            if in_time and _explains(order):
                return True
    return False


def _explains(order: History) -> bool:
    states = frozenset({ABSENT})
    for each in order:
        states = job_model(states, each)
    return bool(states)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations(), max_size=5))
def test_the_checker_agrees_with_the_definition(found: list[Operation]) -> None:
    history = tuple(found)
    assert check(history, job_model, ABSENT).linearizable == explained_by_some_order(history)


def test_an_answer_from_the_past_is_refused() -> None:
    submitted = operation("submit", "j", 0, 1)
    paused = operation("pause", "done", 2, 3)
    assert check(
        (submitted, paused, operation("view", "open", 2, 4)), job_model, ABSENT
    ).linearizable
    verdict = check((submitted, paused, operation("view", "open", 4, 5)), job_model, ABSENT)
    assert not verdict.linearizable
    assert verdict.furthest == (submitted, paused)


def test_what_had_no_answer_may_have_been_done_or_not() -> None:
    submitted = operation("submit", "j", 0, 1)
    lost = operation("cancel", None, 2, 3)
    for status in ("open", "cancelled"):
        seen = operation("view", status, 9, 10)
        assert check((submitted, lost, seen), job_model, ABSENT).linearizable
    back = (operation("view", "cancelled", 9, 10), operation("view", "open", 11, 12))
    assert not check((submitted, lost, *back), job_model, ABSENT).linearizable


def test_two_ids_for_one_key_are_refused() -> None:
    first, second = operation("submit", "j", 0, 5), operation("submit", "k", 0, 5)
    assert not check((first, second), job_model, ABSENT).linearizable


def test_a_report_is_taken_once() -> None:
    submitted = operation("submit", "j", 0, 1)
    taken = operation("report", "taken", 2, 3), operation("report", "taken", 2, 3)
    assert check((submitted, taken[0]), job_model, ABSENT).linearizable
    assert not check((submitted, *taken), job_model, ABSENT).linearizable


def test_a_history_with_too_many_orders_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checker_module, "ORDERS_MAX", 3)
    history = tuple(operation("submit", "j", 0, 9) for _ in range(9))
    with pytest.raises(Undecided, match="9 operations"):
        check(history, job_model, ABSENT)


def recorded(folder: Path, load: Load, *broken: str) -> dict[str, History]:
    async def run() -> dict[str, History]:
        program = ("-m", "tests.system.server", *broken) if broken else ("-m", "orchestra")
        server = Server(folder, (sys.executable, *program))
        await server.start()
        try:
            return await record(server, load, "run")
        finally:
            server.kill()

    return anyio.run(run)


def test_a_server_that_answers_before_it_commits_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged in the half second before the kill is gone, and was told before and is not true after."""
    monkeypatch.chdir(ROOT)
    told = recorded(tmp_path, Load(kills=2), "reply after commit")
    assert not all(check(history, job_model, ABSENT).linearizable for history in told.values())


def test_an_answer_that_is_changed_afterwards_is_found(tmp_path: Path) -> None:
    """Of real histories, with one look at each job changed: it shows as completed before any report can have completed it."""
    told = recorded(tmp_path, Load(clients=8, operations=30, kills=0))
    damaged = 0
    for history in told.values():
        assert check(history, job_model, ABSENT).linearizable
        was = next((each for each in history if _too_early(each, history)), None)
        if was is not None:
            damaged += 1
            wrong = Operation(was.client, "view", "", "completed", was.began_s, was.ended_s)
            changed = tuple(wrong if each is was else each for each in history)
            assert not check(changed, job_model, ABSENT).linearizable
    assert damaged > 1


def _too_early(view: Operation, history: History) -> bool:
    """Whether this is a look at a job that nothing can have completed by then."""
    return view.verb == "view" and not any(
        each.argument.endswith("completed")
        and each.outcome != "ignored"
        and each.began_s < view.ended_s
        for each in history
    )


def test_the_command_tells_what_it_tried(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["prove", "linearizability", "--histories", "20", "--json"]
    assert carry_out(words) == 0
    told = json.loads(capsys.readouterr().out)
    figures = dict(map(tuple, told["figures"]))
    assert figures["kills of the server (SIGKILL, started again)"] == "20"
    assert figures["histories that no order explains"] == "0"


def test_the_command_refuses_numbers_out_of_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert carry_out(["prove", "linearizability", "--clients", "0"]) == 2
    assert "--clients" in capsys.readouterr().err
