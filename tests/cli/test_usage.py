"""What is wrong with a command is told with a remedy; help is whole, quick and light."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from collections.abc import Callable
from importlib import import_module

import pytest

from orchestra.cli.entry import COMMANDS, carry_out
from orchestra.errors import Defect
from tests.cli.kit import BOUND_S, PROGRAM, Done, environment, orchestra

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("words", "told", "remedy"),
    [
        (("wacth",), "wacth", "watch"),
        (("ls", "--jsn"), "--jsn", "--json"),
        (("ls", "--limit", "many"), "--limit", "ls --help"),
        (("ls", "--limit", "0"), "--limit", ""),
        (("ls", "--status", "failing"), "failing", "failed"),
        (("stop",), "no selector", "last"),
        (("stop", "1.2,3"), "selector", "1.3"),
        (("show", "1..2"), "selector", "17.3"),
        (("submit",), "nothing to submit", "submit --"),
        (("submit", "--array", "9-1", "--", "true"), "--array", "1-9"),
        (("submit", "--", "echo", "{itm}"), "argv[1]", ""),
        (("submit", "--needs", "gpu", "--", "true"), "--needs", "gpu=1"),
        (("submit", "x.toml", "--", "true"), "project file", "one of them"),
        (("watch", "1", "--timeout", "soon"), "--timeout", "10m"),
        (("--server", "http://x", "ls"), "--server", "COMMAND"),
        (("ls", "--server", "ftp://x"), "server", "http://"),
        (("ls", "--token-file", "/nowhere"), "/nowhere", ""),
        (("worker", "--app", "nowhere:app", "--explain"), "nowhere", "here"),
        (("worker", "--app", "orchestra.testing.core:ap", "--explain"), "App", "no App"),
        (("worker", "--slots", "0", "--explain"), "--slots", ""),
        (("run", "nowhere.toml"), "nowhere.toml", "submit --"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    told: str,
    remedy: str,
) -> None:
    monkeypatch.setenv("ORCHESTRA_SERVER", "http://127.0.0.1:9")
    code = carry_out(words)
    check_refused(Done(code, *capsys.readouterr()), told, remedy)


@pytest.mark.parametrize(
    ("words", "told", "remedy"),
    [
        (("serve", "--listen", "here"), "listen", ""),
        (("serve", "--listen", "0.0.0.0:0"), "listen", "--tls-cert"),
        (("serve", "--dialect", "esperanto=127.0.0.1:0"), "esperanto", "native"),
        (("serve", "--config", "/nowhere.toml"), "--config", ""),
        (("watch", "99999"), "99999", ""),
    ],
)
def test_what_a_process_refuses(
    cli: Callable[..., Done], words: tuple[str, ...], told: str, remedy: str
) -> None:
    check_refused(cli(*words), told, remedy)


def check_refused(done: Done, told: str, remedy: str) -> None:
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert told in done.err
    assert remedy in done.err
    assert "Traceback" not in done.err


def test_a_bug_is_shown_with_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> str:
        raise Defect("an edge that is not in the table")

    monkeypatch.setattr("orchestra.statemachine.diagram.document", broken)
    assert carry_out(["diagram"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "error: this is a bug of orchestra" in err


def test_whoever_reads_may_leave() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = subprocess.run(
            [*PROGRAM, "diagram"], stdout=pipe, stderr=subprocess.PIPE, env=environment(),
            timeout=BOUND_S, check=False,
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_help_names_every_command_and_code() -> None:
    told = orchestra("--help").out
    for name, (module, summary) in COMMANDS.items():
        assert f"{name}: {summary}" in told
        function = getattr(import_module(f"orchestra.cli.{module}"), name.replace("-", "_"))
        assert (inspect.getdoc(function) or "").splitlines()[0] == summary
    for code in ("0", "1", "2", "3", "4", "124"):
        assert re.search(rf"^ +{code}  \w", told, re.MULTILINE)


def test_help_is_quick_and_light() -> None:
    script = (
        "import sys, time\nfrom orchestra.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'uvicorn', 'starlette', 'httpx', 'apsw', 'psutil', 'anyio', 'msgspec'} & set(sys.modules)\n"
        "print(time.process_time(), sorted(heavy), file=sys.stderr)"
    )
    best = 9.9
    for _ in range(3):
        ended = subprocess.run(
            [PROGRAM[0], "-c", script], capture_output=True, env=environment(), text=True,
            timeout=BOUND_S, check=True,
        )  # fmt: skip
        cpu, _, heavy = ended.stderr.strip().partition(" ")
        assert heavy == "[]"
        best = min(best, float(cpu))
    assert best < 0.4


def test_a_server_loads_no_client() -> None:
    script = (
        "import sys\nimport orchestra.cli.entry, orchestra.cli.serving\n"
        "print(sorted({'httpx', 'pygments'} & set(sys.modules)))"
    )
    ended = subprocess.run(
        [PROGRAM[0], "-c", script], capture_output=True, env=environment(), text=True,
        timeout=BOUND_S, check=True,
    )  # fmt: skip
    assert ended.stdout.strip() == "[]"
