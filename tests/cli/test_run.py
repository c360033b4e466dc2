"""`run`: a whole project in one process, piped and on a terminal."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from tests.cli.kit import BOUND_S, ESCAPE, line_with, on_terminal, orchestra, plain, running

pytestmark = pytest.mark.system

GOOD = """\
[project]
name = "good"
shared = "out"

[stages.make]
over = "1-3"
argv = ["sh", "-c", "echo ::progress 0.5 half; echo {item} > {shared}/{item}"]

[stages.flaky]
argv = ["sh", "-c", "[ {attempt} = 2 ] || { echo not yet >&2; exit 9; }"]
retries = 1
backoff = "10ms"

[stages.join]
after = ["make", "flaky"]
argv = ["sh", "-c", "cat {shared}/1 {shared}/2 {shared}/3 > {shared}/all"]
"""


def project(folder: Path, text: str) -> str:
    # Braces of the shell are doubled, those of placeholders are not.
    text = text.replace("|| { echo", "|| {{ echo").replace("exit 9; }", "exit 9; }}")
    (folder / "project.toml").write_text(text)
    return str(folder / "project.toml")


def slow(folder: Path) -> str:
    return project(folder, '[project]\nname = "slow"\n[stages.a]\nargv = ["sleep", "600"]\n')


def test_piped_it_tells_each_change_in_a_line(tmp_path: Path) -> None:
    done = orchestra("run", project(tmp_path, GOOD), cwd=tmp_path)
    assert done.code == 0, done.err
    assert ESCAPE not in done.out + done.err
    lines = done.out.splitlines()
    changes = [re.sub(r"^ *[0-9.]+s  ", "", line) for line in lines]
    assert changes[0] == "job 1  good  make 3, flaky 1, join 1"
    for n in (1, 2, 3):
        assert f"1.{n} make {n}  running" in changes
        assert any(line.startswith(f"1.{n} make {n}  completed  after ") for line in changes)
    # A try that is over before it was told that it runs is told by its end alone.
    flaky = [line.split("  ")[1] for line in changes if line.startswith("1.4 flaky")]
    assert [word for word in flaky if word != "running"] == ["backoff", "completed"]
    assert done.err.strip().splitlines() == [
        "1.4 flaky completed after 2 tries:",
        "  attempt 1 on local-1: failed, exit, exit code 9: exit code 9; its last words: not yet",
    ]
    assert lines[-2].startswith("good: job 1 completed in ")
    assert lines[-2].endswith(", 5 tasks completed")
    assert lines[-1] == "results are in out"
    assert (tmp_path / "out" / "all").read_text() == "1\n2\n3\n"


def test_on_a_terminal_it_draws(tmp_path: Path) -> None:
    code, drawn = on_terminal("run", project(tmp_path, GOOD), cwd=tmp_path)
    assert code == 0, drawn
    assert "\x1b[3" in drawn  # colours
    last = plain(drawn).replace("\r", "").splitlines()
    assert "━" * 32 + "  3/3" in plain(drawn)
    assert any("1.4 flaky" in line and "backoff" in line for line in last)
    assert last[-1] == "results are in out"


def test_on_a_terminal_it_draws_how_far_each_task_is(tmp_path: Path) -> None:
    text = """\
[project]
name = "far"
shared = "out"
[stages.a]
over = "1-2"
argv = ["sh", "-c", "echo ::progress 0.25 a quarter of {item}; while [ ! -e {shared}/go ]; do sleep 0.05; done"]
"""

    def told(drawn: str, item: int) -> bool:
        line = rf"1\.{item} a {item}  [0-9.]+s   25% a quarter of {item}"
        return re.search(line, plain(drawn)) is not None

    def looks(drawn: str) -> None:
        # The tasks end when it is to be read how far both are, and would run on for ever if it never were.
        if told(drawn, 1) and told(drawn, 2):
            (tmp_path / "out" / "go").touch()

    path = project(tmp_path, text)
    code, drawn = on_terminal("run", path, "--slots", "2", cwd=tmp_path, looks=looks)
    assert code == 0, drawn
    last = plain(drawn).rpartition("━" * 32)[2]
    assert "2/2" in last
    assert "25%" not in last


def test_no_color_is_honoured(tmp_path: Path) -> None:
    code, drawn = on_terminal("run", project(tmp_path, GOOD), cwd=tmp_path, NO_COLOR="1")
    assert code == 0, drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][;m]", drawn)
    code, drawn = on_terminal("run", project(tmp_path, GOOD), cwd=tmp_path, TERM="dumb")
    assert code == 0
    assert ESCAPE not in drawn


def test_a_failure_is_told_with_the_end_of_its_output(tmp_path: Path) -> None:
    text = (
        '[project]\nname = "bad"\n[stages.a]\nretries = 1\nbackoff = "10ms"\n'
        'argv = ["sh", "-c", "printf \'\\\\033[2Jmy last words\\\\n\' >&2; exit 3"]\n'
        '[stages.b]\nafter = ["a"]\nargv = ["true"]\n'
    )
    done = orchestra("run", project(tmp_path, text))
    assert done.code == 1
    assert "1.2 b  skipped" in done.out
    assert "1 failed, 1 skipped" in done.out
    told = done.err.splitlines()
    failed = next(
        at for at, line in enumerate(told) if line.startswith("1.1 a failed after 2 tries:")
    )
    assert "exit code 3" in told[failed]
    for number, line in zip((2, 1), told[failed + 1 :], strict=False):
        assert line.startswith(f"  attempt {number} on local-1: failed, exit, exit code 3: ")
    assert "  | \\x1b[2Jmy last words" in done.err
    assert ESCAPE not in done.out + done.err


def test_the_finished_job_as_json(tmp_path: Path) -> None:
    done = orchestra("run", project(tmp_path, GOOD), "--json")
    assert done.code == 0
    assert done.json["counts"] == {"completed": 5}
    assert "1.1 make 1  completed" in done.err
    quiet = orchestra("run", project(tmp_path, GOOD), "-q")
    assert quiet == (0, "", "")


def test_ctrl_c_cancels_in_good_order(tmp_path: Path) -> None:
    with running("run", slow(tmp_path)) as process:
        line_with(process, "1.1 a  running")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 3
    assert b"1.1 a  cancelled" in out
    assert b"cancelling" in err
    assert b"Traceback" not in err


def test_a_time_limit_cancels(tmp_path: Path) -> None:
    done = orchestra("run", slow(tmp_path), "--timeout", "500ms")
    assert done.code == 124
    assert "job 1  cancelled" in done.out
    assert "--timeout" in done.err


def test_what_nobody_can_run_is_explained(tmp_path: Path) -> None:
    text = '[project]\nname = "big"\n[stages.a]\nargv = ["true"]\nneeds = { lamp = 1 }\n'
    with running("run", project(tmp_path, text)) as process:
        assert "needs lamp=1" in line_with(process, "1.1 a waits:", "stderr")
        process.send_signal(signal.SIGTERM)
        assert process.wait(BOUND_S) == 3


def test_with_a_file_it_is_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "kept.db")
    assert orchestra("run", project(tmp_path, GOOD), "--data", path).code == 0
    done = orchestra("run", project(tmp_path, GOOD), "--data", path, "--json")
    assert done.json["number"] == 2
    assert orchestra("doctor", "--data", path, "--json").code == 0


WAITING = """\
[project]
name = "waits"
shared = "out"

[stages.a]
argv = ["sh", "-c", "until test -e {shared}/go; do sleep 0.05; done"]
"""


def test_a_run_that_was_killed_goes_on_with_the_same_job(tmp_path: Path) -> None:
    words = ("run", project(tmp_path, WAITING), "--data", str(tmp_path / "kept.db"))
    with running(*words, cwd=tmp_path) as process:
        line_with(process, "1.1 a  running")
        process.kill()
        process.wait(BOUND_S)
    (tmp_path / "out" / "go").touch()
    done = orchestra(*words, "--json", cwd=tmp_path)
    assert (done.code, done.json["number"], done.json["status"]) == (0, 1, "completed")
    assert "job 1 was left unfinished in this file: it goes on" in done.err
    # One that has ended is run again.
    assert orchestra(*words, "--json", cwd=tmp_path).json["number"] == 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[project\n", ["line 1", "project.toml"]),
        ('[project]\nname = "x"\n[stages.a]\nargv = ["true"]\nretrys = 1\n', ["stages.a.retrys", "line 5", "retries"]),
        ('[project]\nname = "x"\n[stages.a]\nargv = "ls"\n', ["stages.a.argv", "line 4", "list of words"]),
        ('[project]\nname = "x"\n[stages.a]\nargv = ["a"]\nafter = ["a"]\n', ["a", "circle"]),
        ('[project]\nname = "x"\n', ["stages", "stages.NAME"]),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_told_with_field_and_line(
    tmp_path: Path, text: str, told: list[str]
) -> None:
    done = orchestra("run", project(tmp_path, text))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    for word in told:
        assert word in done.err
    assert "Traceback" not in done.err


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "project.toml").write_bytes(b"[project]\nname = '\xff'\n")
    done = orchestra("run", str(tmp_path))
    assert (done.code, "line 2" in done.err) == (2, True)


def test_a_bad_number_of_slots(tmp_path: Path) -> None:
    done = orchestra("run", project(tmp_path, GOOD), "--slots", "0")
    assert (done.code, json.dumps(done.err).count("--slots")) == (2, 1)
