"""One server and one further worker for all tests of commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import attrs
import pytest

from tests.cli.kit import Done, line_with, orchestra, running


@attrs.frozen
class Farm:
    """A running server: its address, the line that it printed at its start, and its data file."""

    url: str
    readiness: dict[str, object]
    path: str


@pytest.fixture(scope="session")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    path = str(folder / "farm.db")
    serve = ("serve", "--data", path, "--listen", "127.0.0.1:0", "--local-worker", "1", "--json")
    with running(*serve, cwd=folder) as server:
        readiness = json.loads(line_with(server, "{"))
        worker = ("worker", readiness["url"], "--name", "far", "--slots", "2", "--label", "odd")
        with running(*worker, "--capacity", "scope=1", cwd=folder) as process:
            line_with(process, "is connected", "stderr")
            yield Farm(readiness["url"], readiness, path)


@pytest.fixture(scope="session")
def cli(farm: Farm) -> Callable[..., Done]:
    """Carry out a command against the server."""

    def carry_out(*words: str, **more: str) -> Done:
        return orchestra(*words, **{"ORCHESTRA_SERVER": farm.url, **more})

    return carry_out
