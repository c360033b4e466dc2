"""Real processes: each test runs once, on asyncio; the workers that it starts run on both event loops."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
