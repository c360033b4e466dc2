"""What the process engine gives to a program, and what it makes of its end."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from orchestra.engines import process
from orchestra.engines.process import ProcessEngine
from orchestra.errors import EngineFailed
from orchestra.ports import Ended
from orchestra.statemachine.limits import REASON_CHARS_MAX, RESULT_BYTES_MAX
from orchestra.statemachine.records import Cause
from orchestra.testing.check_engine import Recorder, order_for

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
ECHO = "import json, sys; json.dump(sys.argv[1:], open('result.json', 'w'))"
HOSTILE_WORDS = [
    "; rm -rf .",
    "$(touch owned)",
    "`touch owned`",
    "--version",
    "-",
    "",
    " ",
    "a\nb",
    "'\"\\",
    "*",
    "~",
    "{item}",
    "}{",
    "%s%n",
    "ü\u202e😀",
    "\x1b[2J",
    "x" * 100_000,
]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[ProcessEngine]:
    async with ProcessEngine(tmp_path) as entered:
        yield entered


async def run(
    engine: ProcessEngine, template: object, item: object = None, **fields: object
) -> tuple[Ended, Recorder, str]:
    order = order_for(
        "process",
        json.dumps(template).encode(),
        item=b"" if item is None else json.dumps(item).encode(),
        **fields,
    )
    sink = Recorder()
    await engine.start(order, sink)
    return await sink.end_of(order.attempt_id), sink, order.attempt_id


def is_there(path: Path) -> bool:
    return path.exists()


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def python(code: str, *words: str, **more: object) -> dict[str, object]:
    literal = code.replace("{", "{{").replace("}", "}}")
    return {"argv": [sys.executable, "-I", "-S", "-c", literal, *words], **more}


async def output(engine: ProcessEngine, code: str, **more: Any) -> str:
    ended, sink, id = await run(engine, python(code, **more))
    assert ended.outcome == "completed", ended
    return sink.written.get((id, "stdout"), b"").decode()


# ---------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize("word", HOSTILE_WORDS, ids=lambda word: repr(word[:12]))
async def test_items_reach_the_program_as_they_are(engine: ProcessEngine, word: str) -> None:
    ended, _, _ = await run(engine, python(ECHO, "{item}", "<{item}>"), word)
    assert ended.result is not None, ended
    assert json.loads(ended.result) == [word, f"<{word}>"]


async def test_placeholders(engine: ProcessEngine, tmp_path: Path) -> None:
    words = ["{item.a}", "{item.b.1}", "{item}", "{index}", "{position}", "{attempt}", "{task}"]
    words += ["{folder}", "{shared}", "{python}", "{{item}}", "a{index}b{index}"]
    shared = tmp_path / "of the job"
    template = python(ECHO, *words, folder=str(shared))
    item = {"a": "x y", "b": [1, True]}
    ended, _, id = await run(engine, template, item, offset=4, position=7, number=2)
    assert ended.result is not None, ended
    told = json.loads(ended.result)
    assert told[:3] == ["x y", "true", '{"a":"x y","b":[1,true]}']
    assert told[3:7] == ["4", "7", "2", id[:-5]]
    assert told[7:] == [
        str(tmp_path / "1" / id), str(shared), sys.executable, "{item}", "a4b4",
    ]  # fmt: skip
    assert is_there(shared)


@pytest.mark.parametrize(
    ("template", "item", "told"),
    [
        ({"argv": []}, None, "argv: names no program"),
        ({"argv": "true"}, None, "argv: Expected `array`"),
        ({"argv": ["true", 3]}, None, "argv[1]: Expected `str`"),
        ({"argv": ["true"], "shell": True}, None, "unknown field `shell`"),
        ({}, None, "required field `argv`"),
        ({"argv": ["true", "{nothing}"]}, None, "argv[1]: there is no placeholder {nothing}"),
        ({"argv": ["true", "{"]}, None, "argv[1]: a lone {"),
        ({"argv": ["true", "{item}"]}, None, "the task has no item"),
        ({"argv": ["true", "{item.b}"]}, {"a": 1}, "the item has no 'b' - it has a"),
        ({"argv": ["true", "{item}"]}, "a\0b", "argv[1]: a NUL"),
        ({"argv": ["true"], "env": {"A=B": "x"}}, None, "is no name of an environment variable"),
        ({"argv": ["true"], "env": {"A": "{item}"}}, "\0", "env.A: a NUL"),
        ({"argv": ["no-such-program"]}, None, "no program 'no-such-program' in PATH="),
        ({"argv": ["/no/such"]}, None, "'/no/such': No such file"),
        ({"argv": ["/etc"]}, None, "'/etc': Permission denied"),
        ({"argv": ["true", "x" * 200_000]}, None, "Argument list too long"),
        ({"argv": ["true"], "memory_bytes": 0}, None, "memory_bytes: has to be positive"),
        ({"argv": ["true"], "folder": "/proc/no"}, None, "/proc/no"),
    ],
)
async def test_what_can_not_start_says_why(
    engine: ProcessEngine, template: object, item: object, told: str
) -> None:
    ended, sink, _ = await run(engine, template, item)
    assert (ended.outcome, ended.cause) == ("failed", Cause.UNSTARTABLE)
    assert told in ended.message
    assert [call for call, _ in sink.calls] == ["ended"]


async def test_a_lone_surrogate_is_refused(engine: ProcessEngine) -> None:
    order = order_for("process", b'{"argv": ["true", "{item}"]}', item=b'"\\ud800"')
    await engine.start(order, sink := Recorder())
    assert (await sink.end_of(order.attempt_id)).cause is Cause.UNSTARTABLE


# -------------------------------------------------------------------------------------------------------- environment


async def test_the_environment_is_made_from_nothing(
    engine: ProcessEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANARY", "a secret of the worker")
    monkeypatch.setenv("WANTED", "inherited")
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    env = json.loads(
        await output(engine, show, inherit=["WANTED", "ABSENT"], env={"ADDED": "{index}"})
    )
    cookie = env.pop("ORCHESTRA_WARD")
    assert cookie
    assert env.pop("ORCHESTRA_ATTEMPT").startswith(env.pop("ORCHESTRA_TASK"))
    assert env["HOME"] == env["TMPDIR"]
    assert set(env) == {
        "PATH", "HOME", "TMPDIR", "LANG", "ORCHESTRA_ATTEMPT_NUMBER", "ORCHESTRA_SHARED", "WANTED", "ADDED",
    }  # fmt: skip
    assert env["PATH"].startswith(str(Path(sys.executable).parent))
    assert (env["WANTED"], env["ADDED"]) == ("inherited", "0")
    assert "CANARY" not in psutil.Process(engine.guardian_pid).environ()


async def test_a_program_gets_no_open_file_but_its_own_three(engine: ProcessEngine) -> None:
    show = "import os; print([fd for fd in range(1024) if os.path.exists(f'/dev/fd/{fd}')])"
    assert await output(engine, show) == "[0, 1, 2]\n"


async def test_a_program_gets_its_signals_as_they_are_by_nature(tmp_path: Path) -> None:
    show = (
        "import signal\n"
        "print([n.name for n in signal.valid_signals() if signal.getsignal(n) is signal.SIG_IGN])\n"
        "print(signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
    )
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as it is for `worker &` in a script
    try:
        async with ProcessEngine(tmp_path) as engine:
            # Python itself ignores these two when it starts.
            assert await output(engine, show) == "['SIGPIPE', 'SIGXFSZ']\nset()\n"
    finally:
        signal.signal(signal.SIGQUIT, before)


async def test_standard_input(engine: ProcessEngine) -> None:
    show = "import sys; print(repr(sys.stdin.read()))"
    assert await output(engine, show) == "''\n"
    assert await output(engine, show, stdin="a\n{index}") == "'a\\n0'\n"


async def test_each_attempt_has_a_directory_that_goes_with_it(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    make = "import os; os.makedirs('a/b'); open('a/b/c', 'w').close(); print(os.getcwd())"
    first = Path((await output(engine, make)).strip())
    assert first.parent == tmp_path / "1"
    assert not is_there(first)
    ended, _, id = await run(engine, python("open('left', 'w'); raise SystemExit(3)"))
    assert ended.outcome == "failed"
    assert is_there(tmp_path / "1" / id / "left")


async def test_directories_of_failures_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "KEPT_FOLDERS_MAX", 3)
    async with ProcessEngine(tmp_path) as engine:
        for _ in range(5):
            _, _, last = await run(engine, {"argv": ["false"]})
    kept = listed(tmp_path / "1")
    assert len(kept) == 3
    assert tmp_path / "1" / last in kept


async def test_two_engines_share_a_folder(tmp_path: Path) -> None:
    async with ProcessEngine(tmp_path) as one, ProcessEngine(tmp_path) as other:
        assert one.place != other.place
        assert one.place.parent == other.place.parent == tmp_path


async def test_a_folder_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineFailed, match="file can not be used"):
        await ProcessEngine(tmp_path / "file").__aenter__()


async def test_ids_do_not_become_words_of_the_interpreter(engine: ProcessEngine) -> None:
    """Ids of ended attempts are remembered; interned, they would make its table of words large, and building that anew costs memory."""
    ids = "at-0123456789abcdefghij", "jo-0123456789abcdefghij"
    attempt_id, job_id = (f"{each}{len(each)}" for each in ids)
    ended, _, _ = await run(engine, {"argv": ["true"]}, attempt_id=attempt_id, job_id=job_id)
    assert ended.outcome == "completed"
    for id in (attempt_id, job_id):
        fresh = "".join(list(id))
        assert sys.intern(fresh) is fresh, "it was interned before"


async def test_ids_from_afar_stay_inside(engine: ProcessEngine, tmp_path: Path) -> None:
    ended, _, _ = await run(engine, {"argv": ["pwd"]}, attempt_id="../../x", job_id="/etc")
    assert ended.outcome == "completed"
    assert set(listed(tmp_path)) == {tmp_path / "1", tmp_path / "shared"}


# ------------------------------------------------------------------------------------------------------------- output


async def test_output_is_whole_and_apart(engine: ProcessEngine) -> None:
    code = (
        "import sys\n"
        "for n in range(20000):\n"
        "    print('out', n)\n"
        "    if n % 100 == 0: print('err', n, file=sys.stderr)\n"
    )
    ended, sink, id = await run(engine, python(code))
    assert ended.outcome == "completed"
    assert sink.written[id, "stdout"] == b"".join(b"out %d\n" % n for n in range(20000))
    assert sink.written[id, "stderr"] == b"".join(b"err %d\n" % n for n in range(0, 20000, 100))


async def test_a_program_waits_while_its_output_is_not_taken(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    code = (
        "import sys, os\n"
        "for n in range(64):\n"
        "    os.write(1, b'x' * 65536)\n"
        "    open(sys.argv[1], 'a').write('x')\n"
    )
    written = tmp_path / "written"
    sink = Recorder(hold=True)
    order = order_for("process", json.dumps(python(code, str(written))).encode())
    await engine.start(order, sink)
    await sink.start_of(order.attempt_id)
    with anyio.move_on_after(0.5):
        await sink.end_of(order.attempt_id)
    assert written.stat().st_size <= 4
    sink.release()
    ended = await sink.end_of(order.attempt_id)
    assert ended.outcome == "completed"
    assert len(sink.written[order.attempt_id, "stdout"]) == 64 * 65536


async def test_progress_lines(engine: ProcessEngine) -> None:
    code = (
        "import sys, time\n"
        "def say(text): sys.stdout.write(text); sys.stdout.flush(); time.sleep(0.05)\n"
        "say('::progress 0.25 a quarter\\n')\n"
        "say('::prog'); say('ress 0.5 cut in two\\n')\n"
        "say('::progress nan x\\n::progress much\\n ::progress 0.6\\nx ::progress 0.7\\n')\n"
        "say('x' * 3000); say('::progress 0.8 inside a long line\\n')\n"
        "say('::progress 7\\n')\n"
    )
    _, sink, id = await run(engine, python(code))
    assert sink.told[id] == [(0.25, "a quarter"), (0.5, "cut in two"), (1.0, "")]


async def test_output_that_is_no_text_is_kept(engine: ProcessEngine) -> None:
    code = (
        "import os; os.write(1, bytes(range(256))); os.write(2, b'\\xff\\n'); raise SystemExit(1)"
    )
    ended, sink, id = await run(engine, python(code))
    assert sink.written[id, "stdout"] == bytes(range(256))
    assert ended.message == "exit code 1; its last words: \ufffd"


# --------------------------------------------------------------------------------------------------------------- ends


async def test_exit_codes_and_last_words(engine: ProcessEngine) -> None:
    ended, _, _ = await run(engine, python("raise SystemExit('no such catalogue')"))
    assert (ended.cause, ended.exit_code, ended.signal) == (Cause.EXIT, 1, "")
    assert ended.message == "exit code 1; its last words: no such catalogue"
    ended, _, _ = await run(engine, python("raise SystemExit(137)"))
    assert ended.message == "exit code 137 (a shell says so for SIGKILL)"
    ended, _, _ = await run(engine, python("raise SystemExit('x' * 100000)"))
    assert len(ended.message) <= REASON_CHARS_MAX


async def test_signals_have_names(engine: ProcessEngine) -> None:
    ended, _, _ = await run(engine, python("import os; os.kill(os.getpid(), 11)"))
    assert (ended.cause, ended.exit_code, ended.signal) == (Cause.SIGNAL, None, "SIGSEGV")
    ended, _, _ = await run(engine, python("import os; os.kill(os.getpid(), 9)"))
    assert ended.signal == "SIGKILL"
    assert "memory" in ended.message


async def test_results(engine: ProcessEngine) -> None:
    ended, _, _ = await run(engine, {"argv": ["true"]})
    assert (ended.outcome, ended.result, ended.exit_code) == ("completed", b'{"exit_code":0}', 0)
    ended, _, _ = await run(engine, python("open('result.json', 'w').write('{\"a\" : [1, 2] }')"))
    assert ended.result == b'{"a":[1,2]}'


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("open('result.json', 'w').write('{')", "result.json: is no valid JSON"),
        (f"open('result.json', 'w').write('1' * {RESULT_BYTES_MAX + 1})", "is longer than"),
        ("import os; os.mkfifo('result.json')", "is no plain file"),
        ("import os; os.symlink('/etc/passwd', 'result.json')", "can not be read"),
        ("import os; os.mkdir('result.json')", "is no plain file"),
        ("open('result.json', 'w').write('[' * 100000)", "is no valid JSON"),
    ],
)
async def test_a_result_that_is_none_is_a_failure(
    engine: ProcessEngine, code: str, told: str
) -> None:
    ended, _, _ = await run(engine, python(code))
    assert (ended.outcome, ended.cause) == ("failed", Cause.ERROR)
    assert told in ended.message


async def test_time_limits_climb_the_ladder(engine: ProcessEngine) -> None:
    # A shell is deaf in a few milliseconds, where an interpreter may still be starting when its time is over.
    deaf = {"argv": ["/bin/sh", "-c", "trap '' TERM; sleep 600"]}
    ended, _, _ = await run(engine, deaf, run_ms_max=1_000, grace_ms=100)
    assert (ended.outcome, ended.cause) == ("failed", Cause.TIMEOUT)
    assert (ended.message, ended.signal) == ("ran longer than its limit of 1 s", "SIGKILL")


TAKES = (
    "import os, time\n"
    "if os.fork() == 0: held = b'x' * (60 * 1024 * 1024); time.sleep(600)\n"
    "held = b'x' * (60 * 1024 * 1024)\n"
    "time.sleep(600)\n"
)


@pytest.mark.parametrize("how", ["memory_bytes", "needs"])
async def test_memory_limits_hold_for_all_processes_together(
    engine: ProcessEngine, how: str
) -> None:
    template = python(TAKES)
    needs = ()
    if how == "needs":
        needs = (("cpu", 1000), ("memory", 100 * MIB * 1000))
    else:
        template["memory_bytes"] = 100 * MIB
    ended, _, _ = await run(engine, template, needs=needs)
    assert (ended.outcome, ended.cause) == ("failed", Cause.MEMORY)
    assert "MiB of memory; the limit is 100.0 MiB" in ended.message


async def test_memory_that_is_shared_counts_once(engine: ProcessEngine) -> None:
    """Forty processes that show 60 MiB each, of which all but a little is the same."""
    code = (
        "import os, time\n"
        "held = b'x' * (50 * 1024 * 1024)\n"
        "for _ in range(8):\n"
        "    if os.fork() == 0: time.sleep(0.5); os._exit(0)\n"
        "for _ in range(8): os.wait()\n"
    )
    ended, _, _ = await run(engine, python(code, memory_bytes=150 * MIB))
    assert ended.outcome == "completed", ended


async def test_one_process_can_not_take_much_more_between_two_samples(
    engine: ProcessEngine,
) -> None:
    code = "held = b'x' * (2 * 1024 ** 3)"
    ended, _, _ = await run(engine, python(code, memory_bytes=20 * MIB))
    assert ended.outcome == "failed"
    assert ended.cause is Cause.MEMORY or "MemoryError" in ended.message


async def test_a_stop_is_told_with_how_it_ended(engine: ProcessEngine) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    order = order_for("process", json.dumps(python(code)).encode())
    await engine.start(order, sink := Recorder())
    await sink.until(lambda: bool(sink.written), "it is ready", 20)
    await engine.stop(order.attempt_id, "asked")
    ended = await sink.end_of(order.attempt_id)
    assert (ended.outcome, ended.exit_code) == ("stopped", 5)


async def test_many_files_stay_few(engine: ProcessEngine) -> None:
    """No file, process or directory is left of an attempt."""
    await run(engine, {"argv": ["true"]})
    before = psutil.Process().num_fds()
    for _ in range(30):
        await run(engine, python("print(1)"))
        await run(engine, {"argv": ["/no/such"]})
    assert psutil.Process().num_fds() == before
