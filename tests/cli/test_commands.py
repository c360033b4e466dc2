"""Every command as people use it: a real process against a real server with real workers."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.entry import carry_out
from orchestra.dialects.native_wire import codec_of
from orchestra.statemachine.diagram import document
from orchestra.statemachine.replies import (
    JobAccepted,
    JobPage,
    JobView,
    TaskPage,
    TaskView,
    WhyAnswered,
    WorkerPage,
)
from tests.cli.conftest import Farm
from tests.cli.kit import (
    BOUND_S,
    ESCAPE,
    PROGRAM,
    Done,
    environment,
    line_with,
    orchestra,
    running,
)

Cli = Callable[..., Done]
pytestmark = pytest.mark.system


def decoded(done: Done, cls: type[Any]) -> Any:
    """The document as the native dialect's own reader takes it."""
    assert done.code == 0, done.err
    return codec_of(cls, strict=False).decode(done.out.encode())


@pytest.fixture(scope="module")
def hello(cli: Cli) -> int:
    """A finished job of three tasks."""
    words = ("--array", "1-3", "--name", "hello", "--wait", "--json")
    done = cli("submit", *words, "--", "sh", "-c", "echo hi {item}; echo low {item} >&2")
    assert done.code == 0, done.err
    return int(done.json["number"])


@pytest.fixture(scope="module")
def broken(cli: Cli) -> int:
    """A failed job."""
    done = cli("submit", "--wait", "--", "sh", "-c", "echo oh no >&2; exit 7")
    assert done.code == 1
    assert "exit code 7" in done.err
    assert "| oh no" in done.err
    return int(re.findall(r"job (\d+) failed", done.out)[0])


def test_the_server_tells_programs_where_it_is(farm: Farm) -> None:
    assert farm.readiness["url"] == f"http://{farm.readiness['address']}"
    assert farm.readiness["data"] == farm.path
    assert 0 < int(str(farm.readiness["start_ms"])) < 30_000


def test_documents_decode(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, farm: Farm, hello: int
) -> None:
    monkeypatch.setenv("ORCHESTRA_SERVER", farm.url)

    def cli(*words: str) -> Done:
        return Done(carry_out(words), *capsys.readouterr())

    jobs = decoded(cli("ls", "--json"), JobPage)
    assert hello in [job.number for job in jobs.items]
    tasks = decoded(cli("ls", str(hello), "--json"), TaskPage)
    assert [task.selector for task in tasks.items] == [f"{hello}.{n}" for n in (1, 2, 3)]
    assert decoded(cli("show", str(hello), "--json"), JobView).counts == {"completed": 3}
    task = decoded(cli("show", f"{hello}.2", "--json"), TaskView)
    assert [attempt.exit_code for attempt in task.attempts] == [0]
    assert decoded(cli("why", str(hello), "--json"), WhyAnswered).status == "completed"
    workers = decoded(cli("workers", "--json"), WorkerPage)
    assert {worker.name for worker in workers.items} == {"far", "local-1"}
    assert decoded(cli("watch", str(hello), "--json"), JobView).status == "completed"
    accepted = decoded(cli("submit", "--json", "--", "true"), JobAccepted)
    assert accepted.tasks == 1


def test_tables_are_plain_when_piped(cli: Cli, hello: int) -> None:
    for words in (
        ("ls",),
        ("ls", str(hello)),
        ("show", str(hello)),
        ("workers",),
        ("why", str(hello)),
    ):
        done = cli(*words)
        assert done.code == 0, done.err
        assert done.out.strip()
        assert ESCAPE not in done.out + done.err
    assert re.search(rf"^ *{hello}  hello  default  completed  +3/3 ", cli("ls").out, re.MULTILINE)
    assert cli("ls", "-q", str(hello)).out.split() == [f"{hello}.{n}" for n in (1, 2, 3)]
    assert cli("workers", "-q").out.split() == ["local-1", "far"]


def test_output_of_tasks(cli: Cli, hello: int) -> None:
    assert cli("logs", f"{hello}.2").out == "hi 2\n"
    assert cli("logs", f"{hello}.2", "--stderr").out == "low 2\n"
    assert cli("logs", str(hello)).out == "hi 1\nhi 2\nhi 3\n"
    assert cli("logs", f"{hello}.1-2", "-f").out == "hi 1\nhi 2\n"
    outputs = cli("logs", str(hello), "--json").json
    assert [output["text"] for output in outputs] == ["hi 1\n", "hi 2\n", "hi 3\n"]


def test_following_output_while_it_is_written(cli: Cli, farm: Farm, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    loop = f"echo begun; until [ -e {gate} ]; do sleep 0.05; done; echo over"
    number = cli("submit", "-q", "--", "sh", "-c", loop).out.strip()
    with running("logs", number, "-f", ORCHESTRA_SERVER=farm.url) as process:
        assert line_with(process, "begun") == "begun\n"
        gate.touch()
        assert line_with(process, "over") == "over\n"
        assert process.wait(BOUND_S) == 0


def test_exit_codes_by_outcome(cli: Cli, broken: int) -> None:
    assert cli("watch", str(broken)).code == 1
    number = cli("submit", "-q", "--needs", "lamp=1", "--", "true").out.strip()
    assert cli("watch", number, "--timeout", "100ms").code == 124
    assert "lamp" in cli("why", number).out
    stopped = cli("stop", number, "--reason", "wrong lamp", "--wait", "--json")
    assert [each["status"] for each in stopped.json] == ["cancelled"]
    watched = cli("watch", number)
    assert watched.code == 3
    assert "wrong lamp" in watched.out
    unreachable = orchestra("ls", ORCHESTRA_SERVER="http://127.0.0.1:9")
    assert unreachable.code == 4
    assert unreachable.err.startswith("error: can not reach http://127.0.0.1:9")
    assert "\nhelp: " in unreachable.err
    assert orchestra("ls", "--server", "http://127.0.0.1:9").code == 4


def test_a_stop_reaches_what_runs(cli: Cli, farm: Farm) -> None:
    wait = ("submit", "--wait", "--", "sleep", "600")
    with running(*wait, ORCHESTRA_SERVER=farm.url) as submitted:
        selector = line_with(submitted, "run  running").split()[1]
        assert "running" in cli("why", selector).out
        done = cli("stop", selector, "--grace", "1s", "--wait")
        assert done.out == f"{selector}  cancelled\n"
        # A job of which a task was stopped by itself has not been cancelled: not all of it went well.
        assert submitted.wait(BOUND_S) == 1


def test_pause_and_resume_of_a_job_and_a_worker(cli: Cli) -> None:
    number = cli(
        "submit", "-q", "--needs", "scope=1", "--needs", "lamp=1", "--", "true"
    ).out.strip()
    assert cli("pause", number, "--reason", "lunch").out == f"job {number}  paused\n"
    assert "lunch" in cli("why", f"{number}.1").out
    assert cli("resume", number, "--json").json[0]["status"] == "queued"
    assert cli("pause-worker", "far", "--reason", "cleaning").code == 0
    assert "paused (cleaning)" in cli("workers").out
    assert "cleaning" in cli("why", "far").out
    assert cli("resume-worker", "far").out == "far  online\n"
    wrong = cli("pause-worker", "fra")
    assert (wrong.code, wrong.out) == (2, "")
    assert "did you mean far?" in wrong.err
    assert cli("stop", number, "-q").out == ""


def test_retry(cli: Cli, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    done = cli("submit", "--wait", "--json", "--", "test", "-e", str(gate))
    number = done.json["number"]
    assert done.code == 1
    gate.touch()
    assert cli("retry", str(number)).out == f"{number}.1  queued\n"
    assert cli("watch", str(number)).code == 0


def test_retry_takes_tasks_in_any_order(cli: Cli, tmp_path: Path) -> None:
    project = tmp_path / "pair.toml"
    project.write_text(
        '[project]\nname = "pair"\n'
        '[stages.mill]\nargv = ["true"]\nneeds = {scope = 1, lamp = 1}\n'
        '[stages.sell]\nargv = ["true"]\nafter = ["mill"]\n'
    )
    number = cli("submit", str(project), "-q").out.strip()
    assert cli("stop", number, "--wait").code in (0, 3)
    alone = cli("retry", f"{number}.2")
    assert (alone.code, alone.out) == (2, "")
    assert "what the task comes after did not complete" in alone.err
    assert "retry the tasks that it comes after" in alone.err
    both = cli("retry", f"{number}.2", f"{number}.1")
    assert both.out == f"{number}.1  queued\n{number}.2  waiting\n"
    assert cli("stop", number, "-q").out == ""


def test_one_program_with_options(cli: Cli, tmp_path: Path) -> None:
    words = (
        "--label",
        "odd",
        "--env",
        "SCALE=2",
        "--shared",
        str(tmp_path / "s"),
        "--retries",
        "1",
    )
    more = ("--timeout", "30s", "-p", "vlass", "--priority", "5", "--key", "once", "--name", "n")
    program = ("--", "sh", "-c", 'echo $SCALE {shared} "$(pwd)" > {shared}/out; echo {attempt}')
    first = cli("submit", *words, *more, "--json", *program)
    again = cli("submit", *words, *more, "--json", *program)
    assert first.json["job_id"] == again.json["job_id"]
    assert again.json["repeated"]
    number = first.json["number"]
    assert cli("watch", str(number), "-q").code == 0
    shown = cli("show", str(number), "--json").json
    assert (shown["project"], shown["priority"], shown["name"]) == ("vlass", 5, "n")
    assert (tmp_path / "s" / "out").read_text().startswith(f"2 {tmp_path}/s ")
    assert cli("show", f"{number}.1", "--json").json["attempts"][0]["worker"] == "far"


def test_a_project_file_on_a_server(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "project.toml"
    file.write_text(
        '[project]\nname = "two"\nshared = "out"\n[stages.a]\nover = "1-2"\n'
        'argv = ["sh", "-c", "echo {item} > {shared}/{item}"]\n'
        '[stages.b]\nafter = ["a"]\nargv = ["sh", "-c", "cat {shared}/1 {shared}/2 > {shared}/all"]\n'
    )
    done = cli("submit", str(file), "--wait")
    assert done.code == 0, done.err
    assert "two: job" in done.out
    assert (tmp_path / "out" / "all").read_text() == "1\n2\n"


def test_a_watch_survives_a_restart_of_the_server(tmp_path: Path) -> None:
    path, gate = str(tmp_path / "f.db"), tmp_path / "gate"
    serve = ("serve", "--data", path, "--json", "--listen")
    with running(*serve, "127.0.0.1:0", "--local-worker", "0") as server:
        readiness = json.loads(line_with(server, "{"))
        url = readiness["url"]
        number = orchestra(
            "submit", "-q", "--server", url, "--", "sh", "-c", f"test -e {gate}"
        ).out.strip()
        with running("watch", number, "--server", url) as watch:
            line_with(watch, "job 1")
            server.kill()
            server.wait(BOUND_S)
            line_with(watch, "trying again", "stderr")
            gate.touch()
            with running(*serve, readiness["address"], "--local-worker", "1"):
                line_with(watch, "completed")
                assert watch.wait(BOUND_S) == 0


def test_backup_and_doctor(cli: Cli, farm: Farm, hello: int, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    assert cli("backup", str(copy)).out == f"{copy}\n"
    done = cli("doctor", "--data", str(copy), "--json")
    assert done.code == 0, done.out
    found = {finding["check"]: finding["status"] for finding in done.json}
    assert found["data"] == "ok"
    assert found["server"] == "ok"
    taken = cli("backup", str(copy))
    assert taken.code == 2
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"x" * 4096)
    doctor = cli("doctor", "--data", str(damaged))
    assert doctor.code == 1
    assert "broken" in doctor.out
    assert "data:" in doctor.err


def test_diagram_prints_the_document() -> None:
    assert orchestra("diagram").out == document()


def test_a_worker_explains_itself(tmp_path: Path) -> None:
    (tmp_path / "farm_tasks.py").write_text(
        "import orchestra\napp = orchestra.App()\n@app.task\ndef double(n: int) -> int:\n    return 2 * n\n"
    )
    words = (
        "worker",
        "--app",
        "farm_tasks:app",
        "--explain",
        "--label",
        "gpu",
        "--capacity",
        "scope=2",
    )
    done = orchestra(*words, "--json", cwd=tmp_path)
    assert done.code == 0, done.err
    offer = done.json
    assert offer["apps"] == ["double", "process"]
    assert offer["labels"] == ["gpu"]
    assert offer["capacity"]["scope"] == 2
    assert offer["capacity"]["cpu"] > 0
    assert "memory" in orchestra(*words, cwd=tmp_path).out


def test_a_server_with_tokens_lets_in_whoever_has_one(tmp_path: Path) -> None:
    path = tmp_path / "f.db"
    words = ("serve", "--data", str(path), "--listen", "127.0.0.1:0", "--require-token", "--json")
    with running(*words, "--local-worker", "0") as server:
        readiness = json.loads(line_with(server, "{"))
        url, file = readiness["url"], readiness["token_file"]
        assert orchestra("ls", "--server", url).code == 2
        assert orchestra("ls", "--server", url, "--token-file", file).code == 0
        token = json.loads(Path(file).read_text())["plain"]["operator"]
        assert orchestra("ls", "--server", url, ORCHESTRA_TOKEN=token).code == 0
        own = tmp_path / "own"
        own.write_text(token + "\n")
        own.chmod(0o644)
        refused = orchestra("ls", "--server", url, "--token-file", str(own))
        assert (refused.code, "chmod 600" in refused.err) == (2, True)
        own.chmod(0o600)
        assert orchestra("ls", "--server", url, ORCHESTRA_TOKEN_FILE=str(own)).code == 0
        with running("worker", url, "--token-file", file, "--name", "w") as worker:
            line_with(worker, "is connected", "stderr")


def test_a_server_stops_in_time_while_it_works(tmp_path: Path) -> None:
    with running("serve", "--listen", "127.0.0.1:0", "--json", "--local-worker", "1") as server:
        url = json.loads(line_with(server, "{"))["url"]
        with running("submit", "--wait", "--server", url, "--", "sleep", "600") as submitted:
            line_with(submitted, "run  running")
            server.send_signal(signal.SIGTERM)
            assert server.wait(BOUND_S) == 0
            line_with(submitted, "trying again", "stderr")


def test_over_a_websocket(cli: Cli, farm: Farm, hello: int) -> None:
    server = farm.url.replace("http", "ws")
    assert cli("watch", str(hello), "--server", server).code == 0
    assert cli("logs", f"{hello}.1", "--server", server).out == "hi 1\n"


def test_ready_is_told_to_a_descriptor() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [
            *PROGRAM,
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--local-worker",
            "0",
            "--ready-fd",
            str(writing),
        ],
        pass_fds=[writing],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        assert json.loads(told.read())["url"].startswith("http://127.0.0.1:")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, out) == (0, b"")
    assert b"workers join with:  orchestra worker http://127.0.0.1:" in err
