"""The public surface, pinned: a name comes or goes only with a change of this list."""

from __future__ import annotations

import subprocess
import sys

import orchestra
from tests.tidy import ROOT

PINNED = [
    "App",
    "Client",
    "Conflict",
    "Context",
    "Defect",
    "EngineFailed",
    "Forbidden",
    "Job",
    "JobCancelled",
    "JobFailed",
    "LimitReached",
    "Malformed",
    "NotFound",
    "OrchestraError",
    "PeerClosed",
    "ProtocolViolation",
    "Rejected",
    "Stopped",
    "StoreFailed",
    "StoreTaken",
    "SyncClient",
    "SyncJob",
    "Unauthenticated",
    "Unavailable",
    "connect",
    "connect_sync",
]


def test_the_surface_is_what_is_pinned() -> None:
    assert orchestra.__all__ == PINNED


def test_the_surface_is_sorted_and_each_once() -> None:
    assert orchestra.__all__ == sorted(set(orchestra.__all__))


def test_every_name_is_there() -> None:
    for name in orchestra.__all__:
        value = getattr(orchestra, name)
        assert value is getattr(orchestra, name), name
        assert (value.__doc__ or "").strip(), f"{name} has no docstring"


def test_dir_shows_the_surface() -> None:
    assert dir(orchestra) == PINNED


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(orchestra, "Orchestra")


def test_a_star_import_brings_the_surface() -> None:
    code = f"from orchestra import *; assert set({PINNED!r}) <= set(globals())"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
