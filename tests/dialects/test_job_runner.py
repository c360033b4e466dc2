"""The job runner's words, its allow-list, and its refusals, without a server."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from orchestra.config import DialectPort
from orchestra.dialects.job_runner import JobUnknown, WorkerUnknown, job_runner
from orchestra.dialects.job_runner_programs import (
    CommandMissing,
    CommandRefused,
    PathRefused,
    Programs,
    read_programs,
)
from orchestra.dialects.job_runner_words import DONE, SIGNALS, error_text, read_fields, told_by_go
from orchestra.engines.paths import kind_at
from orchestra.errors import Malformed, OrchestraError
from orchestra.statemachine.lifecycles import JOB_FINAL, JobStatus

START = ("apiStartJobReq", ("command", "path", "worker_id"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a script, and links that lead out of it."""
    root = tmp_path / "root"
    (root / "scripts").mkdir(parents=True)
    (root / "scripts" / "count.sh").write_text("echo 1\n")
    (tmp_path / "secret.sh").write_text("echo secret\n")
    (root / "out").symlink_to(tmp_path)
    (root / "link.sh").symlink_to(tmp_path / "secret.sh")
    (root / "inner.sh").symlink_to(root / "scripts" / "count.sh")
    return root


def programs(root: Path, *commands: str) -> Programs:
    return read_programs({"commands": list(commands), "root": str(root)}, kind_at)


def test_every_status_of_a_job_has_its_word() -> None:
    assert set(DONE) == set(JobStatus)
    assert {status for status, done in DONE.items() if done} == JOB_FINAL
    told = {status: error_text(status, None) for status in JobStatus}
    assert told == dict.fromkeys(JobStatus, "") | {
        JobStatus.FAILED: "failed",
        JobStatus.CANCELLED: "signal: killed",
    }
    assert SIGNALS["SIGTERM"] == "terminated"


def test_a_listed_command_gets_one_path_below_the_root(root: Path) -> None:
    bash = programs(root, "bash")
    assert bash.argv("bash", "scripts/count.sh") == ("bash", f"{root}/scripts/count.sh")
    assert bash.argv("bash", "scripts/é.sh") == ("bash", f"{root}/scripts/é.sh")


def hostile_pairs(root: Path) -> list[tuple[str, str]]:
    """2,000 pairs of which none may run: a good command with a bad path, or a bad command with a good path."""
    paths = [
        "", "/", "/etc/passwd", f"{root}/scripts/count.sh", "..", "../secret.sh", "scripts/../../secret.sh",
        "./scripts/count.sh", "scripts//count.sh", "scripts/", "scripts", "scripts/count.sh/", "out/secret.sh", "out",
        "link.sh", "inner.sh", "scripts/count.sh\0", "\0", "a\0/../b", "-c", "-c id", "--rcfile=x", "scripts/-c", "x;id",
        "x|id", "x&id", "$(id)", "`id`", "x\nid", "x\rid", "{item}", "{folder}", "~root", "*", "?", "[a]", "x>y",
        "a'b", 'a"b', "a\\b", "..\\x", "\u202egnp.hs", "\ufeffx", "\u2024\u2024/x", "\uff0e\uff0e/x", "\u2215etc",
        "\ud800", "x" * 1_025, "scripts/count.sh/x", "a\u200bb", "!x", "#x", "%2e%2e/x",
    ]  # fmt: skip
    commands = [
        "sh",
        "/bin/bash",
        "./bash",
        "bash ",
        " bash",
        "BASH",
        "bash\0",
        "bash;id",
        "bash -c",
        "-c",
        "../bash",
    ]
    commands += [
        "b\u0430sh",
        "\uff42ash",
        "{python}",
        "env",
        "python3",
        "bash\n",
        "$SHELL",
        "~",
        ".",
    ]
    pairs = [("bash", path) for path in paths]
    pairs += [(command, "scripts/count.sh") for command in commands]
    pairs += list(itertools.product(commands, paths))
    chance = random.Random(7)
    while len(pairs) < 2_000:
        bad = chance.choice(
            [
                path
                for path in paths
                if "/" not in path and len(path) < 99 and path not in _HARMLESS_WITHIN
            ]
        )
        good = "".join(chance.choices("abcdé1._ ", k=5))
        pairs.append(("bash", f"a{good}/{bad}" if chance.random() < 0.5 else f"{bad}/b{good}"))
    return pairs


_HARMLESS_WITHIN = {"scripts", "out", "link.sh", "inner.sh"}
"""Names that are refused for what stands there, so only at their own place."""


def test_none_of_2000_hostile_pairs_is_let_through(root: Path) -> None:
    bash = programs(root, "bash")
    pairs = hostile_pairs(root)
    assert len(pairs) >= 2_000
    let_through: list[tuple[str, str]] = []
    for command, path in pairs:
        try:
            bash.argv(command, path)
        except (CommandRefused, PathRefused, CommandMissing):
            continue
        let_through.append((command, path))
    assert let_through == []
    assert bash.argv("bash", "scripts/count.sh")[0] == "bash"


def test_an_empty_list_lets_nothing_run(root: Path) -> None:
    for commands in ({}, {"commands": [], "root": str(root)}):
        with pytest.raises(CommandRefused):
            read_programs(commands, kind_at).argv("bash", "scripts/count.sh")


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"commands": "bash"}, "commands"),
        ({"commands": [1]}, "commands"),
        ({"commands": ["-c"], "root": "/"}, "commands"),
        ({"commands": ["bash"]}, "root"),
        ({"commands": ["bash"], "root": "scripts"}, "root"),
        ({"exact": "yes"}, "exact"),
        ({"kommands": ["bash"]}, "kommands"),
    ],
)
def test_bad_options_stop_the_start(options: dict[str, Any], where: str) -> None:
    with pytest.raises(Malformed, match=f"job-runner.{where}"):
        job_runner(DialectPort("job-runner", None, options), kind_at)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{bad", "invalid character 'b' looking for beginning of object key string"),
        ("", "unexpected end of JSON input"),
        ("[]", "json: cannot unmarshal array into Go value of type main.apiStartJobReq"),
        (
            '{"worker_id": 5}',
            "json: cannot unmarshal number into Go struct field apiStartJobReq.worker_id of type string",
        ),
        ("{} x", "invalid character 'x' after top-level value"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("tru3", "invalid character '3' in literal true (expecting 'e')"),
        ("'a'", r"invalid character '\'' looking for beginning of value"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u12g4"', r"invalid character 'g' in \u hexadecimal character escape"),
        ('"a\nb"', r"invalid character '\n' in string literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("-x", "invalid character 'x' in numeric literal"),
        ('{"a":', "unexpected end of JSON input"),
    ],
)
def test_bad_json_is_told_as_the_original_tells_it(body: str, told: str) -> None:
    with pytest.raises(Malformed) as caught:
        read_fields(body.encode(), *START)
    assert caught.value.message == told


def test_names_in_another_case_and_unknown_ones_are_read() -> None:
    body = b'{"Worker_ID": "w", "COMMAND": null, "more": [1]}'
    assert read_fields(body, *START) == {"worker_id": "w", "command": "", "path": ""}
    assert read_fields(b"null", *START) == {"worker_id": "", "command": "", "path": ""}


def test_what_is_json_has_no_complaint() -> None:
    for read in ({}, [], {"a": [1, -2.5e3, {"b": [True, None, "é\n\u2028"]}]}, "x", 0):
        assert told_by_go(json.dumps(read, indent=1)) == ""


def test_each_refusal_has_a_status_and_a_text_of_its_own() -> None:
    kinds: list[type[OrchestraError]] = [OrchestraError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    plain = job_runner(DialectPort("job-runner"), kind_at)
    exact = job_runner(DialectPort("job-runner", None, {"exact": True}), kind_at)
    for dialect in (plain, exact):
        told = dialect.refuse(WorkerUnknown("worker not found", where="worker_id"))
        assert told.body == b'{"error":"worker not found"}\n'
        assert told.status == (500 if dialect is exact else 404)
        bug = dialect.refuse(OrchestraError("secrets"))
        assert (bug.status, bug.body) == (500, b'{"error":"a bug of ours"}\n')
    assert len(kinds) > 15
    assert plain.refuse(CommandRefused("x")).status == 403
    told = exact.refuse(JobUnknown("job not found"))
    assert json.loads(told.body) == {"error": "rpc error: code = Unknown desc = job not found"}
