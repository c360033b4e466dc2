"""Real processes: each test runs once, on asyncio; the workers that it starts run on both event loops."""

from __future__ import annotations

from collections.abc import Callable

import pytest

_FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def told(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Says a figure that was seen; all of them are shown at the end of the run."""
    figures = request.config.stash.setdefault(_FIGURES, [])
    return lambda text: figures.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    figures = config.stash.get(_FIGURES, [])
    if figures:
        terminalreporter.section("figures seen")
        for line in figures:
            terminalreporter.write_line(line)
