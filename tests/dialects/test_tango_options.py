"""What can be made a member container, and what is said of mistakes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestra import App, Context
from orchestra.config import DialectPort
from orchestra.dialects.tango import Member, member
from orchestra.dialects.tango_member import read_member
from orchestra.dialects.tango_words import MemberWord
from orchestra.errors import Malformed
from tests.dialects.tango_kit import generator


def template(made: Member) -> Any:
    return json.loads(made.draft_for(("u", "p")).template)


def test_a_function_receives_what_it_takes() -> None:
    app = App()

    @app.task
    def both(project_id: str, user_id: str, more: int = 1) -> None: ...

    @app.task
    def one(ctx: Context, project_id: str) -> None: ...

    @app.task(mode="process")
    async def none(context: Context) -> None: ...

    @app.task
    def anything(**named: str) -> None: ...

    @app.task
    def needing(user_id: str, frames: int) -> None: ...

    def made(name: str) -> Any:
        return template(member(app, container_id="c", task=name))["kwargs"]

    assert made("both") == made("anything") == {"user_id": "u", "project_id": "p"}
    assert made("one") == {"project_id": "p"}
    assert made("none") == {}
    assert template(member(app, container_id="c", task=one))["kwargs"] == {"project_id": "p"}
    with pytest.raises(Malformed, match="needs frames"):
        made("needing")
    with pytest.raises(Malformed, match="not said which"):
        member(app, container_id="c")


def test_a_program_receives_its_ids_as_arguments() -> None:
    argv = ["{python}", "gen.py", "{user_id}", "out/{project_id}"]
    made = member(App(), container_id="c", argv=argv, env={"P": "{project_id}"}, timeout="1m")
    assert template(made) == {
        "argv": ["{python}", "gen.py", "{item.user_id}", "out/{item.project_id}"],
        "env": {"P": "{item.project_id}"},
    }
    draft = made.draft_for(("u", "p"))
    assert isinstance(draft.over, tuple)
    assert [json.loads(item) for item in draft.over] == [{"user_id": "u", "project_id": "p"}]
    assert draft.run_ms_max == 60_000


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "container_id"),
        ({"container_id": ""}, "container_id"),
        ({"container_id": "a\nb"}, "container_id"),
        ({"container_id": "c", "tsak": "generate"}, "tsak"),
        ({"container_id": "c", "task": "other"}, "task"),
        ({"container_id": "c", "task": 1}, "task"),
        ({"container_id": "c", "task": "generate", "argv": ["a"]}, "argv"),
        ({"container_id": "c", "argv": "a"}, "argv"),
        ({"container_id": "c", "argv": ["a"], "env": {"A": 1}}, "env"),
        ({"container_id": "c", "env": {"A": "1"}}, "argv"),
        ({"container_id": "c", "argv": ["a"], "timeout": "soon"}, "timeout"),
        ({"container_id": "c", "manager": "https://h:1"}, "manager"),
        ({"container_id": "c", "manager": "nowhere"}, "manager"),
        ({"container_id": "c", "manager": "h:1/a?b"}, "manager"),
        ({"container_id": "c", "replies": "rude"}, "replies"),
    ],
)
def test_mistakes_in_the_table_are_named(options: dict[str, object], where: str) -> None:
    app = App()

    @app.task
    def generate() -> None: ...

    with pytest.raises(Malformed) as caught:
        read_member(DialectPort("tango-member", None, options), app.tasks)
    assert caught.value.where == f"dialects.tango-member.{where}"


def test_a_manager_may_be_served_below_a_path() -> None:
    for manager in ("http://127.0.0.1:8440/tango/", "127.0.0.1:8440/tango"):
        reporting = generator(manager=manager).reporting
        assert reporting is not None
        call = reporting.call(("김", "a&b"), MemberWord.FAILED)
        assert (call.host, call.port) == ("127.0.0.1", 8440)
        assert call.path == (
            "/tango/status_report?container_id=code_gen&user_id=%EA%B9%80&project_id=a%26b&status=failed"
        )


def test_a_secret_is_long_enough_and_stays_out_of_sight() -> None:
    app = App()
    with pytest.raises(Malformed, match="16 visible"):
        member(app, container_id="c", argv=["true"], secret="short")
    secret = "0123456789abcdef"  # of this test
    options = {"container_id": "c", "argv": ["true"], "manager": "h:1", "secret": secret}
    made = read_member(DialectPort("tango-member", None, options), {})
    assert secret not in repr(made)
    assert made.reporting is not None
    call = made.reporting.call(("u", "p"), MemberWord.COMPLETED)
    assert call.headers == (("x-tango-secret", secret),)
    assert secret not in call.path
    assert secret not in repr(call)
