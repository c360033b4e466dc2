"""The peers' own environments, made on first use from PyPI, so that their needs never mix with ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

from frame import HERE

PEERS = HERE / ".peers"
REQUIREMENTS = {
    "huey": "huey>=3,<4",
    "dbos": "dbos>=3,<4",
    "fastapi": "fastapi[standard]>=0.130,<1",  # with uvicorn's httptools and uvloop, as its guide says
    "dask": "distributed>=2026.1",
    "hyperqueue": "hyperqueue>=0.20,<1",
    "transitions": "transitions>=0.9,<1",
    "python-statemachine": "python-statemachine>=3,<4",
}


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment."""
    return PEERS / peer / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def prepare(peer: str, say: Callable[[str], None]) -> None:
    """Make a peer's environment unless it stands already. Raises CalledProcessError when pip fails."""
    python = python_of(peer)
    mark = PEERS / peer / ".ready"
    if mark.exists() and mark.read_text() == REQUIREMENTS[peer]:
        return
    say(f"installing {REQUIREMENTS[peer]} into {PEERS / peer}")
    venv.EnvBuilder(with_pip=True, clear=True).create(PEERS / peer)
    install = [str(python), "-m", "pip", "install", "--quiet", REQUIREMENTS[peer]]
    subprocess.run(install, check=True, stderr=subprocess.DEVNULL)
    mark.write_text(REQUIREMENTS[peer])
