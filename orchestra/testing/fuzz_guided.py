"""
Hostile input that is guided by coverage: atheris keeps what reached something new in the code under test, and goes on from it.

Blind mutation finds what lies one or two steps beside a valid input; a guided one goes on step by step. Surfaces and laws are those of
`fuzz`. It needs the extra ``fuzz`` (https://github.com/google/atheris: libFuzzer for Python, on Linux), which is loaded in a process of
its own: it instruments the modules under test while they are imported, and ends its process when it is done.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import attrs

from orchestra.errors import Malformed
from orchestra.testing.fuzz import WORDS, FuzzBroken, Fuzzed, Surface

SURFACES_MODULE = "orchestra.testing.fuzz_surfaces"
CHILD = "orchestra.testing.fuzz_guided_child"

OUTCOME = "outcome.json"
CORPUS = "corpus"
DICTIONARY = "words.dict"

INPUT_S_MAX = 30
"""An input that is fed for longer hangs; the slowest take some milliseconds."""

TAIL_CHARACTERS = 3_000
"""The last words of a process that died without an outcome: a stack of the interpreter, or what libFuzzer tells."""

_REACHED = re.compile(r"cov: (\d+)")


@attrs.frozen(slots=True)
class Guided:
    """
    What came of it.

    Args:
        fuzzed: As of the blind driver.
        edges_corpus: Edges of the code under test that the valid inputs reach.
        edges: Edges that were reached in the end.
    """

    fuzzed: Fuzzed
    edges_corpus: int
    edges: int


def fuzz_guided(
    name: str, *, inputs: int, seed: int, module: str = SURFACES_MODULE, source: str = ""
) -> Guided:
    """
    Feed the surface of this name with so many inputs.

    The seed begins the same search; how it goes on depends on what is reached, which state in a world may change.

    Args:
        module: Where a mapping ``SURFACES`` has it; for surfaces of your own.
        source: The package that is under test beside orchestra and its parsers.

    Raises:
        Malformed: There is no such surface, or atheris is not installed.
        FuzzBroken: An input broke a law, raised what is not planned, hung, or ended the process. The message has the input.
    """
    if find_spec("atheris") is None:
        told = "atheris is not installed: pip install 'orchestra-coordinator[fuzz]'"
        raise Malformed(told, where="--engine")
    with tempfile.TemporaryDirectory(prefix="orchestra-fuzz-") as place:
        folder = Path(place)
        words = (module, name, str(inputs), str(seed), place, source)
        errors = folder / "errors"
        with errors.open("wb") as stderr:
            done = subprocess.run(  # noqa: S603 - this very Python and this very package
                [sys.executable, "-m", CHILD, *words],
                cwd=folder,  # where libFuzzer leaves an input that ended the process
                # What a world leaves on the disk goes with the folder: the process ends without looking back.
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "TMPDIR": place,
                },
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                check=False,
            )
        said = errors.read_text(errors="replace")
        outcome = folder / OUTCOME
        if not outcome.exists():
            raise FuzzBroken(f"{name}: {_died(folder, done.returncode, said)}")
        return _read(name, json.loads(outcome.read_text()), said)


def _died(folder: Path, code: int, said: str) -> str:
    left = [path for pattern in ("crash-*", "timeout-*", "oom-*") for path in folder.glob(pattern)]
    raws = "; ".join(f"{path.name}: {path.read_bytes()[:1_000]!r}" for path in left)
    return (
        f"the process ended with {code} ({raws or 'no input was kept'}): {said[-TAIL_CHARACTERS:]}"
    )


def _read(name: str, outcome: Mapping[str, Any], said: str) -> Guided:
    if outcome["finding"]:
        raise FuzzBroken(f"{name}: {outcome['finding']}")
    reached = [int(found) for found in _REACHED.findall(said)]
    if not reached:
        raise FuzzBroken(f"{name}: nothing under test was reached: {said[-TAIL_CHARACTERS:]}")
    inputs, accepted = int(outcome["inputs"]), int(outcome["accepted"])
    growth = int(outcome["growth_bytes"])
    return Guided(
        Fuzzed(name, inputs, accepted, inputs - accepted, growth), reached[0], reached[-1]
    )


def lay_out(surface: Surface, folder: Path) -> list[str]:
    """Write the corpus and the words for libFuzzer; the arguments that name them."""
    corpus = folder / CORPUS
    corpus.mkdir()
    for number, raw in enumerate(surface.corpus()):
        (corpus / f"{number:04}").write_bytes(raw)
    lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in WORDS if word)
    (folder / DICTIONARY).write_text("".join(lines))
    return [f"-dict={folder / DICTIONARY}", f"-timeout={INPUT_S_MAX}", str(corpus)]
