"""The file that keeps tokens: private, whole, and never the same twice."""

from __future__ import annotations

import base64
import copy
import json
import os
import shlex
from pathlib import Path

import pytest

from orchestra.cli.entry import carry_out
from orchestra.dialects.wire import Role
from orchestra.errors import Malformed
from orchestra.transports.tokens import (
    TOKEN_PREFIX,
    Secret,
    open_tokens,
    read_plain_tokens,
    read_tokens,
    write_tokens,
)
from tests.test_docs import blocks
from tests.tidy import ROOT


def test_the_token_file_is_private_and_kept_tokens_are_digests(tmp_path: Path) -> None:
    path = tmp_path / "farm.db.token"
    open_tokens(str(path))
    book = read_tokens(str(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [(t.name, t.role) for t in book.tokens] == [
        ("operator", Role.OPERATOR),
        ("worker", Role.WORKER),
    ]
    plain = read_plain_tokens(str(path))
    for token in plain.values():
        assert token.reveal().startswith("otk_")
        assert len(token.reveal()) == 4 + 43
        assert token.reveal() not in repr(book)
    document = json.loads(path.read_text())
    del document["plain"]
    path.write_text(json.dumps(document))
    assert read_tokens(str(path)) == book
    assert [kept.name for kept in tmp_path.iterdir()] == ["farm.db.token"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o666, 0o660])
def test_a_token_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "t"
    open_tokens(str(path))
    path.chmod(mode)
    with pytest.raises(Malformed, match="others can read"):
        open_tokens(str(path))
    path.chmod(0o600)
    open_tokens(str(path))


def test_a_damaged_token_file_is_refused_and_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "t"
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"tokens": 3}',
        '{"tokens": [{"name": "x"}]}',
        '{"tokens": [{"name": "x", "role": "king", "sha256": "00"}]}',
        '{"tokens": [{"name": "x", "role": "worker", "sha256": "00"}]}',
    ):
        path.write_text(text)
        path.chmod(0o600)
        with pytest.raises(Malformed, match="token_file"):
            open_tokens(str(path))
        assert path.read_text() == text


def bound(name: str, role: str, worker: object) -> str:
    entry = {"name": name, "role": role, "sha256": "0" * 64, "worker": worker}
    return json.dumps({"tokens": [entry]})


@pytest.mark.parametrize(
    ("role", "worker", "told"),
    [
        ("operator", "render-1", "no operator's token is for one worker"),
        ("viewer", "render-1", "no viewer's token is for one worker"),
        ("worker", "", "it is empty"),
        ("worker", "  ", "it is empty"),
        ("worker", "a\nb", "control characters"),
        ("worker", "x" * 201, "201 characters"),
        ("worker", "e\u0301", "composed form"),
        ("worker", None, "it is no text"),
        ("worker", 7, "it is no text"),
        ("worker", ["render-1"], "it is no text"),
    ],
)
def test_a_binding_that_would_protect_nothing_is_refused_with_its_place(
    role: str, worker: object, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    path.write_text(bound("ann", role, worker))
    path.chmod(0o600)
    with pytest.raises(Malformed, match=told) as caught:
        open_tokens(str(path))
    assert caught.value.where == f"token_file {path}, worker of token 'ann'"
    assert caught.value.remedy


def test_a_token_may_be_bound_to_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(bound("ann", "worker", "render 1, süd"))
    path.chmod(0o600)
    book = open_tokens(str(path))
    (token,) = read_tokens(str(path)).tokens
    assert token.worker == "render 1, süd"
    assert [book.binds(name) for name in ("render 1, süd", "ann", "")] == [True, False, False]
    assert book.knows(token)
    fresh = tmp_path / "fresh"
    write_tokens(str(fresh), [token], {})
    assert read_tokens(str(fresh)).tokens == (token,)
    fresh.replace(path)
    assert book.knows(token)
    path.write_text(bound("ann", "worker", "render-2"))
    assert not book.knows(token), "the entry is another's now"
    assert not book.binds("render 1, süd")
    assert book.binds("render-2")
    path.unlink()
    assert not book.binds("render-2"), "nobody is known, so nobody has to be kept out"


def test_a_link_or_folder_in_place_of_the_token_file_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    open_tokens(str(real))
    link.symlink_to(real)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (link, tmp_path, tmp_path / "pipe", tmp_path / "missing" / "t"):
        with pytest.raises(Malformed, match="token_file"):
            open_tokens(str(path))


def test_two_installations_never_share_a_token(tmp_path: Path) -> None:
    seen: set[str] = set()
    for number in range(20):
        path = str(tmp_path / str(number))
        open_tokens(path)
        seen |= {token.reveal() for token in read_plain_tokens(path).values()}
    assert len(seen) == 40


GUESSES = (
    "", "admin", "orchestra", "password", "token", "secret", "changeme", "root", "test", "operator", "worker", "default",
    "0" * 43, "A" * 43, "otk_", "otk_" + "0" * 43, "otk_" + "A" * 43, "null", "undefined", "Bearer", "local", "*", "otk_\0",
)  # fmt: skip


def test_nothing_that_one_would_try_first_opens_a_new_installation(tmp_path: Path) -> None:
    """No default credentials: what is drawn is unlike any text in the tree, and 256 bits long."""
    path = str(tmp_path / "tokens")
    book = open_tokens(path)
    assert [guess for guess in GUESSES if book.find(guess) is not None] == []
    for token in read_plain_tokens(path).values():
        drawn = token.reveal().removeprefix(TOKEN_PREFIX)
        assert len(base64.urlsafe_b64decode(drawn + "=" * (-len(drawn) % 4))) == 32
        assert book.find(token.reveal()) is not None, "the control: the right one opens"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("canary")
    shown = [repr(secret), str(secret), f"{secret}", f"{[secret]}", "%s" % secret]  # noqa: UP031 - each way of printing
    assert "canary" not in "".join(shown)
    assert secret == Secret("canary")
    assert secret != Secret("other")
    with pytest.raises(TypeError):
        copy.copy(secret)


def test_a_token_that_is_taken_out_of_the_file_opens_nothing_from_then_on(tmp_path: Path) -> None:
    path = tmp_path / "t"
    book = open_tokens(str(path))
    plain = {role: secret.reveal() for role, secret in read_plain_tokens(str(path)).items()}
    operator, worker = plain[Role.OPERATOR], plain[Role.WORKER]
    kept = [token for token in read_tokens(str(path)).tokens if token.role is Role.OPERATOR]
    found = book.find(worker)
    assert found is not None
    assert found.role is Role.WORKER
    fresh = tmp_path / "fresh"
    write_tokens(str(fresh), kept, {})
    fresh.replace(path)
    assert book.find(worker) is None
    assert book.find(operator) == kept[0]


def test_while_the_file_is_unfit_no_token_is_known(tmp_path: Path) -> None:
    path = tmp_path / "t"
    book = open_tokens(str(path))
    operator = read_plain_tokens(str(path))[Role.OPERATOR].reveal()
    whole = path.read_bytes()
    for spoil in (
        lambda: path.write_bytes(whole[:-9]),
        lambda: path.chmod(0o644),
        path.unlink,
    ):
        spoil()
        assert book.find(operator) is None
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        path.chmod(0o600)
        assert book.find(operator) is not None


def test_the_commands_on_the_page_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    (block,) = (one for one in blocks(page, "console") if "orchestra token" in one)
    lines = [shlex.split(line.removeprefix("$ orchestra ")) for line in block.splitlines()]
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ORCHESTRA_")]:
        monkeypatch.delenv(name)
    kept: list[list[tuple[str, str, str]]] = []
    given: dict[str, str] = {}
    for words in lines:
        assert carry_out(words[: words.index(">")] if ">" in words else words) == 0
        book = read_tokens("farm.db.token")
        kept.append([(each.name, each.role.value, each.worker) for each in book.tokens[2:]])
        out = capsys.readouterr().out
        if words[:2] == ["token", "add"]:
            given[words[2]] = out.strip()
    ann, attic = ("ann", "operator", ""), ("attic", "worker", "render-1")
    assert kept == [[ann], [ann, attic], [ann, attic], [ann]]
    assert book.find(given["attic"]) is None
    found = book.find(given["ann"])
    assert found is not None
    assert found.role is Role.OPERATOR
