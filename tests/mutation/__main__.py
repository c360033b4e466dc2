"""The command line: ``python -m tests.mutation``."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestra.cli import speech
from orchestra.testing.proof_page import Evidence, write
from tests.mutation.checks import Check, walks
from tests.mutation.journal import Journal, fingerprint
from tests.mutation.operators import Mutant, mutants_of
from tests.mutation.survivors import compared, listed
from tests.mutation.trial import ENDLESS, NOTICED, UNTESTED, Trials, Verdict
from tests.tidy import ROOT

CORE = ROOT / "orchestra" / "statemachine"

TESTS = ("tests/statemachine",)
"""What the mutants have to get past, besides the walks: the tests of the core."""

LEFT_OUT = "the_walk_finds_every_removed_rule"
"""Tests that take rules out themselves, and would only be in each other's way."""

DRAWN = "TestCore"
"""The test that draws sessions at random: a walk as well."""

JOURNAL = ROOT / ".mutants.jsonl"

SCORE_MIN = 0.9
TOLD_EVERY = 200


def mutants(every: int = 1, only: str = "") -> list[Mutant]:
    """
    One of ``every`` mutants of the core, of the modules whose name has ``only`` in it.

    Which ones does not depend on what else there is: a change of the core leaves the sample of the rest as it was. Half of a sample
    comes before its other half, and so on, so that a run that is interrupted has tried a sample.
    """
    found: list[Mutant] = []
    for path in sorted(CORE.glob("*.py")):
        if only in path.stem:
            found.extend(mutants_of(f"orchestra.statemachine.{path.stem}", path))
    chosen = [mutant for mutant in found if _number(mutant.id) % every == 0]
    return sorted(chosen, key=lambda mutant: _twos(_number(mutant.id)), reverse=True)


def _number(id: str) -> int:
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8])


def _twos(number: int) -> int:
    """The largest power of two that divides a number."""
    return number & -number


def tried(
    mutants: Sequence[Mutant],
    tests: Sequence[str],
    walks: Sequence[Check],
    *,
    left_out: str,
    journal: Journal,
    processes: int,
) -> list[Verdict]:
    """
    What became of each mutant.

    Raises:
        SystemExit: A test fails without any mutant, or there are none.
    """
    verdicts = [
        Verdict(mutant, *journal.known[mutant.id])
        for mutant in mutants
        if mutant.id in journal.known
    ]
    waiting = [mutant for mutant in mutants if mutant.id not in journal.known]
    if not waiting:
        return verdicts

    def tell(verdict: Verdict) -> None:
        journal.add(verdict)
        verdicts.append(verdict)
        if len(verdicts) % TOLD_EVERY == 0:
            noticed = sum(each.outcome == NOTICED for each in verdicts)
            speech.say(f"{len(verdicts):,} of {len(mutants):,} mutants, {noticed:,} noticed")

    # Whether something fails is asked, not what the smallest example is.
    os.environ["ORCHESTRA_HYPOTHESIS"] = "mutation"
    options = ["-o", "addopts=", "-p", "no:terminal", "-p", "no:cacheprovider"]
    warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    chosen = ["-k", f"not ({left_out})"] if left_out else []
    plugin = Trials(waiting, tell, walks, CORE, processes)
    ended = pytest.main([*options, *warnings, *chosen, *tests], plugins=[plugin])
    if ended:
        raise SystemExit(f"this does not pass without a mutant: {plugin.failed}")
    return verdicts


def _words() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    words.add_argument("--every", type=int, default=1, help="try one of so many")
    words.add_argument("--only", default="", help="modules whose name has this in it")
    words.add_argument("--tests", nargs="+", default=TESTS, help="the tests to get past")
    words.add_argument("--no-walks", action="store_true", help="and nothing but the tests")
    words.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="so many at a time"
    )
    words.add_argument("--score", type=float, default=SCORE_MIN, help="what must be reached")
    words.add_argument("--any", action="store_true", help="whether survivors are listed or not")
    words.add_argument("--survivors", type=Path, help="write those that were not noticed here")
    words.add_argument("--journal", type=Path, default=JOURNAL, help="where a run can go on from")
    words.add_argument("--again", action="store_true", help="take no noticed one a second time")
    words.add_argument("--write", help="put the result on this page, such as docs/proof.md")
    return words


def main() -> int:
    """Try mutants; 0 when nine of ten were noticed, and of each other one the reason is listed."""
    told = _words().parse_args()
    began_s = time.monotonic()
    folders = (CORE, ROOT / "tests" / "mutation", ROOT / "orchestra" / "testing")
    paths = [ROOT / path for path in told.tests]
    state = fingerprint([*folders, *paths], f"{told.tests} {told.no_walks}")
    journal = Journal(told.journal, state, again=told.again)
    chosen = mutants(told.every, told.only)
    verdicts = tried(
        chosen,
        [str(path) for path in paths],
        () if told.no_walks else tuple(walks()),
        left_out=f"{LEFT_OUT} or {DRAWN}" if told.no_walks else LEFT_OUT,
        journal=journal,
        processes=told.processes,
    )
    alive = sorted(verdict.mutant.id for verdict in verdicts if verdict.outcome != NOTICED)
    if told.survivors:
        told.survivors.write_text("".join(f"{id}\n" for id in alive), encoding="utf-8")
    counts = Counter(verdict.outcome for verdict in verdicts)
    score = counts[NOTICED] / max(len(verdicts), 1)
    page = listed()
    whole = told.every == 1 and not told.only
    against = compared(alive, [mutant.id for mutant in chosen], page, all=whole)
    figures = (
        ("mutants", f"{len(verdicts):,}"),
        ("noticed", f"{counts[NOTICED]:,}"),
        ("of which by a test", f"{_tests_noticed(verdicts):,}"),
        ("of which because they do not come to an end", f"{_endless(verdicts):,}"),
        ("not noticed, and the reason listed", f"{len(alive) - len(against.unlisted):,}"),
        ("not noticed without a reason", f"{len(against.unlisted):,}"),
        ("at lines that no test comes by", f"{counts[UNTESTED]:,}"),
        ("score", f"{score:.1%}"),
        ("time", f"{time.monotonic() - began_s:,.0f} s"),
    )
    speech.put_table(("WHAT", "FIGURE"), figures)
    for id in against.unlisted:
        speech.say(f"not noticed, and not listed: {id}")
    for id in against.outdated:
        speech.say(f"listed, and noticed or not there any more: {id}")
    if told.write:
        _write(told.write, figures, told.every)
    if told.any:
        return 0 if score >= told.score else 1
    return 0 if score >= told.score and not against.unlisted else 1


def _tests_noticed(verdicts: Sequence[Verdict]) -> int:
    return sum("::" in verdict.by for verdict in verdicts)


def _endless(verdicts: Sequence[Verdict]) -> int:
    return sum(verdict.by == ENDLESS for verdict in verdicts)


def _write(page: str, figures: tuple[tuple[str, str], ...], every: int) -> None:
    sample = f" --every {every}" if every > 1 else ""
    evidence = Evidence(
        name="mutants",
        title="Small changes of the core",
        command=f"python -m tests.mutation{sample}",
        figures=figures,
        seeds="",
        result=(
            "Each is one change of one function of the core: a comparison, a connective, a sign, a number, a word, a statement. "
            "What is not noticed is listed with its reason in tests/mutation/survivors.toml."
        ),
    )
    write(evidence, page)


if __name__ == "__main__":
    sys.exit(main())
