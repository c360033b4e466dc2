"""A skipped test proves nothing: where everything should be there, it is a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy import ROOT

SUITE = """
import sys

import pytest


def test_missing(require):
    require(modules=("no_such_module",), hint="pip install it")


def test_present(require):
    require(modules=("json",), programs=("sh",), hint="never read")


@pytest.mark.skipif(True, reason="needs root: it mounts a file system")
def test_excused():
    raise AssertionError


@pytest.mark.xfail(reason="known", strict=True)
def test_expected_failure():
    raise AssertionError
"""


def run(folder: Path, suite: str, required: str) -> str:
    shutil.copy(ROOT / "tests" / "conftest.py", folder / "conftest.py")
    (folder / "test_it.py").write_text(suite, encoding="utf-8")
    env = {**os.environ, "ORCHESTRA_REQUIRE": required}
    argv = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(folder),
    ]
    done = subprocess.run(
        [*argv, str(folder)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout


@pytest.mark.parametrize(
    ("required", "verdict"),
    [
        ("", "1 passed, 2 skipped, 1 xfailed"),
        ("all", "1 failed, 1 passed, 1 skipped, 1 xfailed"),
    ],
)
def test_a_skip_is_a_failure_where_all_is_required(
    tmp_path: Path, required: str, verdict: str
) -> None:
    assert verdict in run(tmp_path, SUITE, required)


@pytest.mark.parametrize(("required", "verdict"), [("", "1 skipped"), ("all", "1 error")])
def test_so_is_the_skip_of_a_whole_module(tmp_path: Path, required: str, verdict: str) -> None:
    suite = "import pytest\npytest.importorskip('no_such_module')\n"
    assert verdict in run(tmp_path, suite, required)
