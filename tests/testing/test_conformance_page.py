"""The examples of docs/conformance.md are whole: with a part in the place of theirs, each passes as it is printed, and is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import blocks
from tests.tidy import ROOT

pytestmark = pytest.mark.slow

LINES_MAX = 30
"""What is promised to whoever proves a part of their own."""

MY_PACKAGE = '''
"""Somebody's parts: ours under other names."""

import itertools
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

from orchestra.dialects.wire import Dialect, Role, Route, WireResponse
from orchestra.dialects.asks import Known
from orchestra.engines.process import ProcessEngine
from orchestra.errors import Rejected
from orchestra.storage.sqlite import SqliteStore
from tests.transports.far_ends import serve_memory

_fresh = itertools.count()


class MyStore:
    @staticmethod
    async def open(path):
        return await SqliteStore.open(f"{path}-{next(_fresh)}")


def MyEngine():
    return ProcessEngine(Path(tempfile.mkdtemp()))


@asynccontextmanager
async def my_server(far_end):
    async with serve_memory(far_end) as link:
        yield SimpleNamespace(address=link.asker, kill=link.cut)


@asynccontextmanager
async def my_client(address):
    yield address


def _told(request, answer):
    return WireResponse(200, repr(answer).encode())


def _refuse(error):
    return WireResponse(400 if isinstance(error, Rejected) else 503, b"no")


def my_dialect():
    routes = (
        Route("start", "POST", "/start", lambda request: Known(len(request.body)), _told, Role.ANYONE),
        Route("jobs", "GET", "/jobs", lambda request: Known(dict(request.query)), _told, Role.ANYONE),
    )
    return Dialect("mine", routes, _refuse)
'''

CONFTEST = """
import pytest


@pytest.fixture(params=["asyncio"])
def anyio_backend(request):
    return request.param
"""


def test_each_example_passes_as_it_is_printed(tmp_path: Path) -> None:
    examples = blocks((ROOT / "docs" / "conformance.md").read_text(encoding="utf-8"), "python")
    assert len(examples) == 4
    assert max(example.count("\n") for example in examples) < LINES_MAX
    (tmp_path / "my_package.py").write_text(MY_PACKAGE)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    for number, example in enumerate(examples):
        (tmp_path / f"test_example_{number}.py").write_text(example)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/local/bin:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-1_000:]
    for number in range(len(examples)):
        assert f"test_example_{number}.py" in done.stdout
