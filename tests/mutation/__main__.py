"""The command line: ``python -m tests.mutation``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestra.cli import speech
from orchestra.testing.proof_page import Evidence, write
from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.trial import KILLED, SURVIVED, UNTESTED, Trials, Verdict
from tests.tidy import ROOT

CORE = ROOT / "orchestra" / "statemachine"

TESTS = ("tests/statemachine", "tests/testing/test_schedules.py")
"""What the mutants have to get past: the tests of the core, and schedules under its invariants."""

LEFT_OUT = "the_walk_finds_every_removed_rule or rule_taken_out"
"""Tests that take rules out themselves, and would only be in each other's way."""

SCORE_MIN = 0.9
TOLD_EVERY = 200


def mutants(every: int = 1, first: int = 0, only: str = "") -> list[Mutant]:
    """One of ``every`` mutants of the core from number ``first`` on, of the modules whose name has ``only`` in it."""
    found: list[Mutant] = []
    for path in sorted(CORE.glob("*.py")):
        if only in path.stem:
            found.extend(mutants_of(f"orchestra.statemachine.{path.stem}", path))
    return found[first::every]


def tried(mutants: Sequence[Mutant], tests: Sequence[str], left_out: str = "") -> list[Verdict]:
    """
    What became of each mutant.

    Raises:
        SystemExit: A test fails without any mutant, or there are none.
    """
    verdicts: list[Verdict] = []

    def tell(verdict: Verdict) -> None:
        verdicts.append(verdict)
        if len(verdicts) % TOLD_EVERY == 0:
            killed = sum(each.outcome == KILLED for each in verdicts)
            speech.say(f"{len(verdicts):,} of {len(mutants):,} mutants, {killed:,} noticed")

    # Whether something fails is asked, not what the smallest example is.
    os.environ["ORCHESTRA_HYPOTHESIS"] = "mutation"
    options = ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider"]
    warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    chosen = ["-k", f"not ({left_out})"] if left_out else []
    plugin = Trials(mutants, tell)
    ended = pytest.main([*options, *warnings, *chosen, *tests], plugins=[plugin])
    if ended:
        raise SystemExit(f"the tests do not pass without a mutant: {plugin.failed}")
    return verdicts


def line_of(verdict: Verdict) -> str:
    """A mutant in one line."""
    mutant = verdict.mutant
    place = f"{mutant.module.rpartition('.')[2]}.py:{mutant.line}"
    note = " (no test comes by)" if verdict.outcome == UNTESTED else ""
    return f"{place} {mutant.function}: {mutant.what}{note}"


def main() -> int:
    """Try mutants; 0 when nine of ten were noticed."""
    words = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    words.add_argument("--every", type=int, default=1, help="try one of so many")
    words.add_argument("--first", type=int, default=0, help="and begin with this one")
    words.add_argument("--only", default="", help="modules whose name has this in it")
    words.add_argument("--tests", nargs="+", default=TESTS, help="the tests to get past")
    words.add_argument("--survivors", type=Path, help="write those that were not noticed here")
    words.add_argument("--write", help="put the result on this page, such as docs/proof.md")
    told = words.parse_args()
    began_s = time.monotonic()
    paths = [str(ROOT / path) for path in told.tests]
    verdicts = tried(mutants(told.every, told.first, told.only), paths, LEFT_OUT)
    counts = Counter(verdict.outcome for verdict in verdicts)
    score = counts[KILLED] / max(len(verdicts), 1)
    if told.survivors:
        ordered = sorted(verdicts, key=lambda each: (each.mutant.module, each.mutant.line))
        lines = [line_of(each) for each in ordered if each.outcome != KILLED]
        told.survivors.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    figures = (
        ("mutants", f"{len(verdicts):,}"),
        ("noticed", f"{counts[KILLED]:,}"),
        ("not noticed", f"{counts[SURVIVED]:,}"),
        ("in functions that no test comes by", f"{counts[UNTESTED]:,}"),
        ("score", f"{score:.1%}"),
        ("time", f"{time.monotonic() - began_s:,.0f} s"),
    )
    speech.put_table(("WHAT", "FIGURE"), figures)
    if told.write:
        sample = f" --every {told.every} --first {told.first}" if told.every > 1 else ""
        evidence = Evidence(
            name="mutants",
            title="Small changes of the core",
            command=f"python -m tests.mutation{sample}",
            figures=figures,
            seeds="",
            result="Each is one change of one function of the core: a comparison, a connective, a sign, a number, a word, a statement.",
        )
        write(evidence, told.write)
    return 0 if score >= SCORE_MIN else 1


if __name__ == "__main__":
    sys.exit(main())
