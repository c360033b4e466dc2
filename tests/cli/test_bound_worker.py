"""A real server and real workers: one whose name is bound works on, whoever comes with another token and wants to be it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from tests.cli.kit import BOUND_S, Done, line_with, orchestra, running

pytestmark = pytest.mark.system


@attrs.frozen
class Guarded:
    """A server that asks for tokens, and its folder."""

    url: str
    folder: Path

    def cli(self, *words: str) -> Done:
        """A command with the operator's token."""
        return orchestra(*words, cwd=self.folder, **self.operator)

    @property
    def operator(self) -> dict[str, str]:
        found = str(self.folder / "farm.db.token")
        return {"ORCHESTRA_SERVER": self.url, "ORCHESTRA_TOKEN_FILE": found}

    def draw(self, name: str, *words: str) -> str:
        """Add a worker's token; the file that it is alone in."""
        done = self.cli("token", "add", name, "--role", "worker", *words, "--data", "farm.db")
        assert done.code == 0, done.err
        path = self.folder / f"{name}.token"
        path.touch(0o600)
        path.write_text(done.out)
        return str(path)

    def worker(self, name: str, token: str, scheme: str = "http") -> tuple[str, ...]:
        url = self.url.replace("http", scheme, 1)
        return ("worker", url, "--name", name, "--slots", "1", "--token-file", token)

    @property
    def task(self) -> Any:
        """The one task."""
        return self.cli("show", "1.1", "--json").json


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    serve = ("serve", "--data", "farm.db", "--listen", "127.0.0.1:0", "--local-worker", "0")
    with running(*serve, "--require-token", "--json", cwd=tmp_path) as server:
        yield Guarded(json.loads(line_with(server, "{"))["url"], tmp_path)


@pytest.mark.slow
def test_a_worker_whose_name_is_bound_works_on_undisturbed(guarded: Guarded) -> None:
    own = guarded.draw("attic", "--worker", "render-1")
    others = [guarded.draw("cellar", "--worker", "render-2"), guarded.draw("anywhere")]
    with running(*guarded.worker("render-1", own), cwd=guarded.folder) as worker:
        line_with(worker, "is connected", "stderr")
        wait = "echo begun; until [ -e go ]; do sleep 0.05; done; echo through"
        script = f"cd {guarded.folder}; {wait}"
        assert guarded.cli("submit", "--", "/bin/sh", "-c", script).code == 0
        with running("logs", "1.1", "-f", cwd=guarded.folder, **guarded.operator) as logs:
            line_with(logs, "begun")
        before = guarded.task["attempts"]
        for token in others:
            for scheme in ("http", "ws"):
                refused = orchestra(*guarded.worker("render-1", token, scheme), cwd=guarded.folder)
                check_refused(refused, bound_elsewhere="cellar" in token)
        (seen,) = guarded.cli("workers", "--gone", "--json").json["items"]
        assert (seen["name"], seen["status"], seen["incarnation"]) == ("render-1", "online", 1)
        assert guarded.task["attempts"] == before
        (guarded.folder / "go").touch()
        assert guarded.cli("watch", "1").code == 0
        assert [each["worker"] for each in guarded.task["attempts"]] == ["render-1"]
        assert guarded.cli("logs", "1.1").out == "begun\nthrough\n"
        assert worker.poll() is None
        # The control: with a token for the name the same words are the next worker's, and the former stops.
        fresh = guarded.draw("attic-2", "--worker", "render-1")
        with running(*guarded.worker("render-1", fresh), cwd=guarded.folder) as successor:
            line_with(successor, "is connected", "stderr")
            assert "another process joined" in line_with(worker, "error: ", "stderr")
            assert worker.wait(BOUND_S) == 2


def check_refused(done: Done, *, bound_elsewhere: bool) -> None:
    """It ended, and says what is wrong, where, and what to do about it."""
    assert (done.code, done.out) == (2, ""), done.err
    assert "Traceback" not in done.err
    last = "\n".join(line for line in done.err.splitlines() if line.startswith(("error", "help")))
    if bound_elsewhere:
        assert last == (
            "error: this token is for the worker 'render-2' alone (name)\n"
            "help: start the worker with --name render-2, or use a token for the other name"
        )
    else:
        assert last == (
            "error: the worker 'render-1' has a token of its own, and this is another (name)\n"
            "help: use that worker's own token, or another name"
        )


def test_a_worker_whose_token_is_taken_out_is_told_and_ends(guarded: Guarded) -> None:
    own = guarded.draw("attic", "--worker", "render-1")
    with running(*guarded.worker("render-1", own), cwd=guarded.folder) as worker:
        line_with(worker, "is connected", "stderr")
        assert guarded.cli("token", "rm", "attic", "--data", "farm.db").code == 0
        assert "token is not known" in line_with(worker, "error: ", "stderr")
        assert worker.wait(BOUND_S) == 2
