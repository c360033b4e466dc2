"""`token`: what is drawn is printed once and opens what was said; the file stays whole, private, and nobody's change is lost."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.entry import carry_out
from orchestra.dialects.wire import Role
from orchestra.errors import Conflict, LimitReached, Malformed, NotFound
from orchestra.transports import token_changes
from orchestra.transports.token_changes import add_token, remove_token
from orchestra.transports.tokens import (
    TOKEN_PREFIX,
    open_tokens,
    read_kept,
    read_plain_tokens,
    read_tokens,
)

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings file, and none of a developer's variables."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ORCHESTRA_")]:
        monkeypatch.delenv(name)


def token(*words: str) -> int:
    return carry_out(["token", *words, "--data", "farm.db"])


PATH = "farm.db.token"


def files() -> list[str]:
    return [path.name for path in Path().iterdir()]


def listed(capsys: Capture) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert token("ls", "--json") == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.parametrize("role", ["operator", "viewer", "worker"])
def test_what_is_added_is_printed_once_and_opens_what_was_said(role: str, capsys: Capture) -> None:
    book = open_tokens(PATH)
    assert token("add", "ann", "--role", role) == 0
    told = capsys.readouterr()
    drawn = told.out.strip()
    assert drawn.startswith(TOKEN_PREFIX)
    assert told.out == f"{drawn}\n"
    assert f"{role}'s token 'ann' added" in told.err
    found = book.find(drawn)
    assert found is not None
    assert (found.name, found.role, found.worker) == ("ann", Role(role), "")
    assert token("ls") == 0
    assert token("ls", "--json") == 0
    shown = "".join(capsys.readouterr())
    for secret in (
        drawn,
        found.sha256,
        *(each.reveal() for each in read_plain_tokens(PATH).values()),
    ):
        assert secret not in shown + told.err
    assert drawn not in Path(PATH).read_text()
    assert stat.S_IMODE(Path(PATH).stat().st_mode) == 0o600


def test_a_token_for_one_worker(capsys: Capture) -> None:
    assert token("add", "attic", "--role", "worker", "--worker", "render 1") == 0
    told = capsys.readouterr()
    assert "made with its first two tokens" in told.err
    assert "for the worker 'render 1' alone" in told.err
    assert "--name 'render 1' --token-file FILE" in told.err
    found = open_tokens(PATH).find(told.out.strip())
    assert found is not None
    assert found.worker == "render 1"
    assert token("ls") == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME      ROLE      WORKER",
        "operator  operator",
        "worker    worker",
        "attic     worker    render 1",
    ]
    assert listed(capsys)[-1] == {"name": "attic", "role": "worker", "worker": "render 1"}
    assert token("add", "attic-2", "--role", "worker", "--worker", "render 1") == 0
    capsys.readouterr()
    assert token("rm", "attic") == 0
    assert "warning" not in capsys.readouterr().err
    assert token("rm", "attic-2") == 0
    assert "no token is bound to the worker 'render 1' any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told", "remedy"),
    [
        (("add", "operator", "--role", "worker"), "already", "token rm operator"),
        (("add", "ann", "--role", "king"), "king", "--help"),
        (("add", "ann"), "--role", "--help"),
        (("add", "", "--role", "viewer"), "empty", "name"),
        (("add", "a\nb", "--role", "viewer"), "control characters", ""),
        (("add", "ann", "--role", "viewer", "--worker", "x"), "no viewer's token", "worker"),
        (("add", "ann", "--role", "worker", "--worker", ""), "--worker", "name"),
        (("rm", "operators"), "no token 'operators'", "did you mean operator?"),
        (("rm", "operator"), "last operator's token", "--force"),
        (("ls", "--config", "nowhere.toml"), "--config", ""),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(
    words: tuple[str, ...], told: str, remedy: str, capsys: Capture
) -> None:
    open_tokens(PATH)
    before = Path(PATH).read_bytes()
    assert token(*words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert told in err
    assert remedy in err
    assert Path(PATH).read_bytes() == before
    assert files() == [PATH]


@pytest.mark.parametrize("words", [("ls",), ("rm", "ann")])
def test_without_a_file_there_is_nothing_to_list_or_take_out(
    words: tuple[str, ...], capsys: Capture
) -> None:
    assert token(*words) == 2
    assert f"there is no such file (token_file {PATH})" in capsys.readouterr().err
    assert carry_out(["token", *words]) == 2
    assert "--data FILE" in capsys.readouterr().err
    assert files() == []


def test_it_finds_the_file_that_serve_would_read(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("orchestra.toml").write_text('data = "of-toml.db"\n')
    add = ["token", "add", "ann", "--role", "viewer"]
    for number, (words, path) in enumerate(
        [
            ([], "of-toml.db.token"),
            (["--data", "given.db"], "given.db.token"),
            (["--token-file", "tokens"], "tokens"),
        ]
    ):
        assert carry_out([*add, *words]) == 0
        assert Path(path).exists(), number
    monkeypatch.setenv("ORCHESTRA_TOKEN_FILE", "of-environment")
    assert carry_out(add) == 0
    assert Path("of-environment").exists()
    capsys.readouterr()


def test_who_takes_out_the_last_operators_token_has_to_mean_it(capsys: Capture) -> None:
    open_tokens(PATH)
    assert token("add", "ann", "--role", "operator") == 0
    assert token("rm", "operator") == 0
    assert token("rm", "ann") == 2
    assert [each["name"] for each in listed(capsys)] == ["worker", "ann"]
    assert token("rm", "ann", "--force") == 0
    assert [each["name"] for each in listed(capsys)] == ["worker"]
    assert token("rm", "worker") == 0, "an operator's token is not missed twice"


def test_a_token_that_is_taken_out_is_in_no_part_of_the_file_any_more() -> None:
    book = open_tokens(PATH)
    plain = {role: secret.reveal() for role, secret in read_plain_tokens(PATH).items()}
    (gone,) = remove_token(PATH, "worker")
    assert gone.role is Role.WORKER
    assert book.find(plain[Role.WORKER]) is None
    assert book.find(plain[Role.OPERATOR]) is not None
    text = Path(PATH).read_text()
    assert (plain[Role.WORKER] in text, gone.sha256 in text) == (False, False)
    assert plain[Role.OPERATOR] in text


def test_each_of_several_that_have_one_name_is_taken_out() -> None:
    """The command makes no second one; a hand may have."""
    open_tokens(PATH)
    first = add_token(PATH, "ann", Role.VIEWER).reveal()
    second = add_token(PATH, "bob", Role.VIEWER).reveal()
    Path(PATH).write_text(Path(PATH).read_text().replace('"bob"', '"ann"'))
    book = open_tokens(PATH)
    assert len(remove_token(PATH, "ann")) == 2
    assert (book.find(first), book.find(second)) == (None, None)


def test_what_others_have_written_into_the_file_stays() -> None:
    open_tokens(PATH)
    document = json.loads(Path(PATH).read_text())
    document["note"] = "kept"
    document["tokens"][0]["given_to"] = "Ann"
    Path(PATH).write_text(json.dumps(document))
    add_token(PATH, "ann", Role.VIEWER)
    remove_token(PATH, "ann")
    assert read_kept(PATH).document == document


def test_changes_at_the_same_time_are_all_kept() -> None:
    open_tokens(PATH)
    begin = threading.Barrier(8)

    def add(number: int) -> None:
        begin.wait()
        add_token(PATH, f"ann-{number}", Role.VIEWER)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.name for each in read_tokens(PATH).tokens} >= {f"ann-{n}" for n in range(8)}
    assert files() == [PATH]


def test_without_taking_turns_one_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: somebody else's change between the reading and the writing of ours."""
    open_tokens(PATH)
    put, read = token_changes._replace, token_changes.read_kept
    both = threading.Barrier(2, timeout=30)

    def together(path: str) -> Any:
        kept = read(path)
        both.wait()
        return kept

    monkeypatch.setattr(token_changes.fcntl, "flock", lambda *_: None)
    monkeypatch.setattr(token_changes, "_replace", lambda *given: (both.wait(), put(*given)))
    monkeypatch.setattr(token_changes, "read_kept", together)
    names = ["ann", "bob"]
    threads = [threading.Thread(target=add_token, args=(PATH, name, Role.VIEWER)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each.name for each in read_tokens(PATH).tokens} & {*names}) == 1


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_change_that_fails_leaves_the_file_as_it_was(
    call: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_tokens(PATH)
    before = Path(PATH).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    assert token("add", "ann", "--role", "viewer") == 2
    out, err = capsys.readouterr()
    assert out == "", "what is not kept is not given out"
    assert "can not be changed: No space left on device" in err
    assert Path(PATH).read_bytes() == before
    assert files() == [PATH]


def test_the_folder_is_flushed_after_the_file_is_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    open_tokens(PATH)
    done: list[str] = []
    flush, replace = os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def replaced(source: str, target: str) -> None:
        done.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    add_token(PATH, "ann", Role.VIEWER)
    assert done == ["file", "replace", "folder"]


def test_a_link_is_not_followed(capsys: Capture) -> None:
    open_tokens("elsewhere")
    before = Path("elsewhere").read_bytes()
    Path(PATH).symlink_to("elsewhere")
    for words in (("add", "ann", "--role", "viewer"), ("rm", "worker"), ("ls",)):
        assert token(*words) == 2
        assert f"token_file {PATH}" in capsys.readouterr().err
    assert Path(PATH).is_symlink()
    assert Path("elsewhere").read_bytes() == before


def test_a_file_that_others_can_read_is_not_added_to(capsys: Capture) -> None:
    open_tokens(PATH)
    Path(PATH).chmod(0o640)
    assert token("add", "ann", "--role", "viewer") == 2
    assert "chmod 600" in capsys.readouterr().err
    assert len(json.loads(Path(PATH).read_text())["tokens"]) == 2


def test_a_file_does_not_grow_beyond_what_a_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    open_tokens(PATH)
    before = Path(PATH).read_bytes()
    monkeypatch.setattr(token_changes, "TOKEN_FILE_BYTES_MAX", len(before) + 10)
    with pytest.raises(LimitReached, match="take tokens out"):
        add_token(PATH, "ann", Role.VIEWER)
    assert Path(PATH).read_bytes() == before


def test_from_a_program_the_same_is_refused() -> None:
    open_tokens(PATH)
    with pytest.raises(Conflict):
        add_token(PATH, "worker", Role.WORKER)
    with pytest.raises(Malformed):
        add_token(PATH, "ann", Role.OPERATOR, "render-1")
    with pytest.raises(NotFound):
        remove_token(PATH, "ann")
    with pytest.raises(FileNotFoundError):
        add_token("nowhere", "ann", Role.VIEWER)
