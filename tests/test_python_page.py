"""Every block of the page of the Python API is run, one after the other in one program, and prints what the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.kit import BOUND_S, environment, line_with, running
from tests.test_docs import blocks
from tests.tidy import ROOT

pytestmark = pytest.mark.system

TEXT = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = blocks(TEXT, "python")
ADDRESS = "http://127.0.0.1:8440"
EXAMPLES = "examples=100"


def said(block: str) -> list[str]:
    """What stands behind each ``print`` of a block, in order."""
    lines = [line for line in block.splitlines() if line.strip().startswith("print(")]
    assert all("  # " in line for line in lines), "a print tells what it prints"
    return [line.rpartition("  # ")[2] for line in lines]


def printed(program: str, folder: Path) -> list[str]:
    file = folder / "page.py"
    file.write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        cwd=folder,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_page_prints_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "farm.py").write_text(BLOCKS[0], encoding="utf-8")
    serve = ("serve", "--listen", "127.0.0.1:0", "--json", "--app", "farm:app")
    # A hundred simulations are more than it takes to see that the block is right.
    program = "\n".join(BLOCKS).replace(EXAMPLES, "examples=1")
    with running(*serve, "--local-worker", "1", cwd=tmp_path) as server:
        url = json.loads(line_with(server, "{"))["url"]
        told = printed(program.replace(ADDRESS, url), tmp_path)
    assert told == [line for block in BLOCKS for line in said(block)]
    assert program.count(ADDRESS) >= 1
    assert TEXT.count(EXAMPLES) == 1
    assert len(BLOCKS) >= 9  # none was lost


def test_a_page_that_says_something_else_is_seen(tmp_path: Path) -> None:
    block = "for n in range(2):\n    print(n * 2)  # 0\nprint(3)  # 3\n"
    assert said(block) == ["0", "3"]
    assert printed(block, tmp_path) == ["0", "2", "3"]
