"""What an import costs and brings: embedding must stay light, and the core must need next to nothing."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from textwrap import dedent

from tests.tidy import ROOT

HEAVY = frozenset(
    {"apsw", "cyclopts", "h11", "httpcore", "httpx", "multiprocessing", "psutil", "rich"}
    | {"sqlite3", "sse_starlette", "starlette", "trio", "uvicorn", "wsproto"}
)
"""Server, client, database, command-line and terminal libraries."""

IMPORT_MS_MAX = 150
RUNS = 5
"""The median of so many runs: one run may meet a cold cache."""


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    argv = [sys.executable, "-c", dedent(code)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded_by(code: str) -> set[str]:
    report = (
        "\nimport json, sys\nprint(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    )
    return set(json.loads(run(code + report)))


def test_import_brings_nothing_heavy() -> None:
    assert loaded_by("import orchestra") & HEAVY == set()


def test_the_public_names_bring_nothing_heavy() -> None:
    """A developer who runs in memory needs no server, client, database or terminal."""
    touch = "import orchestra\nfor name in orchestra.__all__: getattr(orchestra, name)"
    assert loaded_by(touch) & HEAVY == set()


def test_a_heavy_import_would_be_seen() -> None:
    assert loaded_by("import orchestra, sqlite3, uvicorn") & HEAVY >= {"sqlite3", "uvicorn"}


def test_import_is_quick() -> None:
    """CPU time, so that a busy machine does not matter much."""
    code = """
        import time
        begun = time.process_time()
        import orchestra
        print((time.process_time() - begun) * 1_000)
    """
    costs_ms = [float(run(code)) for _ in range(RUNS)]
    assert statistics.median(costs_ms) <= IMPORT_MS_MAX, costs_ms


BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("orchestra", "attr", "attrs"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
"""


def test_the_core_needs_attrs_alone() -> None:
    """It decides, in a process in which every other third-party package is blocked."""
    code = """
        from orchestra.statemachine import State, Stimulus, step
        from orchestra.statemachine.commands import StageDraft, SubmitJob
        from orchestra.statemachine.diagram import document
        from orchestra.statemachine.replies import JobAccepted

        draft = SubmitJob("hello", (StageDraft("say", "echo"),))
        outcome = step(State(), Stimulus(draft, at_ms=1, seed=7))
        assert isinstance(outcome.reply, JobAccepted), outcome.reply
        assert document().startswith("# Lifecycles")
        print("decided")
    """
    assert run(BLOCK + dedent(code)).strip() == "decided"


def test_the_block_holds() -> None:
    code = """
        try:
            import msgspec
        except ImportError as problem:
            print(problem)
    """
    assert run(BLOCK + dedent(code)).strip() == "msgspec is blocked"
