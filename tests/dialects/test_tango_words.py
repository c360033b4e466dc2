"""The words of the TANGO guide: total both ways, and read as its programs send them."""

from __future__ import annotations

import pytest

from orchestra.dialects.tango_words import (
    ALIASES,
    HAPPENED,
    MEMBER_WORD,
    MemberWord,
    Verb,
    container_name,
    heard,
    ids_of,
    target_of,
    verb_of,
)
from orchestra.dialects.wire import WireRequest
from orchestra.errors import Malformed, NotFound, Rejected
from orchestra.statemachine.lifecycles import ATTEMPT, ATTEMPT_FINAL, AttemptStatus
from orchestra.transports.routing import read_query


def asked(target: str) -> WireRequest:
    """A request as the transport makes it."""
    path, _, query = target.partition("?")
    return WireRequest("GET", path, {}, read_query({"query_string": query.encode()}), {}, b"")


def read(request: WireRequest) -> tuple[Verb, tuple[str, str]]:
    """What is asked, and of which task."""
    return verb_of(request), ids_of(request)


def test_status_words_are_total_mappings() -> None:
    assert set(MEMBER_WORD) == set(AttemptStatus)
    assert set(HAPPENED) == set(MemberWord)
    assert set(MEMBER_WORD.values()) | {MemberWord.READY} == set(MemberWord)
    for status in ATTEMPT_FINAL:
        assert HAPPENED[MEMBER_WORD[status]] == status.value


DIAGRAM = """
    [*] --> Ready
    Ready --> Started: start()
    Started --> Running
    Started --> Failed: Internal Error
    Started --> Stopped: stop()
    Running --> Stopped: stop()
    Running --> Failed: Internal Error
    Running --> Completed
    Failed --> [*]
    Stopped --> [*]
    Completed --> Ready
"""


def test_the_container_state_machine_is_the_diagram_of_the_guide() -> None:
    drawn: set[tuple[str, str]] = set()
    for line in DIAGRAM.strip().splitlines():
        source, target = line.partition(":")[0].lower().split("-->")
        drawn.add((source.strip(), target.strip()))
    # An attempt begins at the start of a ready place, and a place is ready again when it is over.
    ours = {(str(row.source or "ready"), str(row.target)) for row in ATTEMPT.rows}
    around = {("[*]", "ready"), ("failed", "[*]"), ("stopped", "[*]"), ("completed", "ready")}
    assert ours | around == drawn


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize(
    "arguments",
    ["user_id=u%20x&project_id=3", "project_id=3&user_id=u%20x", "project_id=%223%22&user_id=u+x&"],
)
def test_both_forms_of_address_in_any_order(verb: Verb, arguments: str) -> None:
    for target in (f"/{verb}?{arguments}", f"/?{verb}&{arguments}", f"/{verb}/?{arguments}"):
        request = asked(target)
        assert read(request) == (verb, ("u x", "3"))


@pytest.mark.parametrize("ids", [("", ""), ("u x&y=1", "ü/3"), ("u", "p")])
def test_what_is_sent_is_read_back(ids: tuple[str, str]) -> None:
    target = target_of(Verb.STATUS_REQUEST, *ids)
    assert target.startswith("/status_request?user_id=")
    assert ids_of(asked(target)) == ids


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/?user_id=u&project_id=p", NotFound),
        ("/startXYZ?user_id=u&project_id=p", NotFound),
        ("/?start&stop&user_id=u&project_id=p", Malformed),
        ("/start?user_id=u", Malformed),
        ("/start?user_id=&project_id=p", Malformed),
        ("/start?user_id=u&project_id=" + "p" * 201, Malformed),
    ],
)
def test_what_is_refused(target: str, error: type[Rejected]) -> None:
    request = asked(target)
    with pytest.raises(error):
        read(request)


@pytest.mark.parametrize(
    ("status", "body", "word"),
    [
        *((200, word.value.encode(), word) for word in MemberWord),
        *((200, f'"{word.value}"\n'.encode(), word) for word in MemberWord),
        (204, b"", MemberWord.READY),
        (208, b'"completed"', MemberWord.COMPLETED),
        (400, b"failed", MemberWord.FAILED),
        (200, b"", None),
        (200, b"banana", None),
        (200, b"\xff\xfe", None),
        (200, b" " * 50 + b"running", None),
        (404, b"running", None),
        (500, b"boom", None),
        (500, b"completed", None),
    ],
)
def test_what_a_member_says(status: int, body: bytes, word: MemberWord | None) -> None:
    assert heard(status, body) is word


def test_aliases_lead_to_names_that_are_no_aliases() -> None:
    assert not set(ALIASES) & set(ALIASES.values())
    assert container_name("necknas") == "neck_nas"
    assert container_name("labelling") == "labelling"
