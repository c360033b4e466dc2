"""The channel's session, frame by frame and without a loop."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.dialects.asks import Keyed
from orchestra.dialects.native_frames import (
    Ended,
    Pushed,
    Refused,
    Replied,
    Watching,
    ask_frame,
    hear,
    reply_to,
    unwatch_frame,
    watch_frame,
)
from orchestra.dialects.native_pushes import EventReader, encode_event
from orchestra.dialects.native_session import IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, NativeSession
from orchestra.dialects.native_table import BY_CLASS, WATCHES
from orchestra.dialects.session import (
    MESSAGE_TOO_BIG,
    UNSUPPORTED_KIND,
    Close,
    Put,
    SendFrame,
    Subscribe,
    Unsubscribe,
)
from orchestra.errors import Conflict, LimitReached, Malformed
from orchestra.ports import Lagged, Moved, OrderSeen, ProgressSeen, Push, WatchStory
from orchestra.statemachine.commands import CancelJob, JobChanged
from orchestra.statemachine.lifecycles import JobStatus
from orchestra.statemachine.queries import GetJob
from orchestra.statemachine.replies import Order
from orchestra.testing.transport_samples import Samples, variants

CHANGED = JobChanged("17", JobStatus.CANCELLING)


def problem(actions: Any) -> tuple[int | None, str]:
    """The (id, where) of a single problem."""
    (action,) = actions
    assert isinstance(action, SendFrame)
    told = json.loads(action.text)
    return told["id"], told["problem"].get("where", "")


def test_question_and_answer() -> None:
    session = NativeSession()
    (action,) = session.received(ask_frame(1, CancelJob("17"), "k").decode())
    assert action == Put(1, "POST", "CancelJob", Keyed(CancelJob("17"), "k"))
    (sent,) = session.answered(1, CHANGED)
    assert isinstance(sent, SendFrame)
    heard = hear(sent.text)
    assert isinstance(heard, Replied)
    assert reply_to(CancelJob, heard.reply) == CHANGED


def test_refusal_keeps_its_words() -> None:
    session = NativeSession()
    session.received(ask_frame(1, CancelJob("17"), "").decode())
    (sent,) = session.refused(1, Conflict("it is over", where="job_id"))
    assert isinstance(sent, SendFrame)
    heard = hear(sent.text)
    assert isinstance(heard, Refused)
    assert heard.tag == 1
    assert str(heard.error) == "job_id: it is over"


@pytest.mark.parametrize("cls", BY_CLASS, ids=lambda cls: cls.__name__)
def test_everything_can_be_asked(cls: type[Any]) -> None:
    session = NativeSession()
    for tag, asked in enumerate(variants(cls), 1):
        (action,) = session.received(ask_frame(tag, asked, "").decode())
        assert action == Put(tag, BY_CLASS[cls].method, BY_CLASS[cls].name, asked)


def test_a_watch_from_open_to_end() -> None:
    session = NativeSession()
    for tag, watch in enumerate((v for w in WATCHES for v in variants(w.input.cls)), 1):
        (action,) = session.received(watch_frame(tag, watch).decode())
        assert action == Subscribe(tag, "GET", type(watch).__name__, watch)
        (sent,) = session.watching(tag)
        assert hear(sent.text) == Watching(tag)  # type: ignore[union-attr]
        (sent,) = session.pushed(tag, Lagged(3))
        assert hear(sent.text) == Pushed(tag, Lagged(3))  # type: ignore[union-attr]
        assert session.received(unwatch_frame(tag).decode()) == (Unsubscribe(tag),)
        (sent,) = session.ended(tag)
        assert hear(sent.text) == Ended(tag)  # type: ignore[union-attr]
        assert session.received(unwatch_frame(tag).decode()) == ()


@pytest.mark.parametrize(
    ("frame", "where"),
    [
        ("", (None, "character 0")),
        ("[]", (None, "body")),
        ('{"id": 1}', (1, "ask")),
        ('{"ask": "GetOverview"}', (None, "id")),
        ('{"id": 0, "ask": "GetOverview"}', (0, "id")),
        ('{"id": -1, "ask": "GetOverview"}', (-1, "id")),
        ('{"id": 9007199254740993, "ask": "GetOverview"}', (9007199254740993, "id")),
        ('{"id": "1", "ask": "GetOverview"}', (None, "id")),
        ('{"id": 1, "id": 2, "ask": "GetOverview"}', (2, "id")),
        ('{"id": 1, "ask": "Tick"}', (1, "ask")),
        ('{"id": 1, "ask": "GetOverview", "unwatch": true}', (1, "ask")),
        ('{"id": 1, "ask": "GetOverview", "colour": 1}', (1, "colour")),
        ('{"id": 1, "ask": "GetJob"}', (1, "body.job_id")),
        ('{"id": 1, "ask": "GetJob", "body": {"job_id": 3}}', (1, "body.job_id")),
        ('{"id": 1, "ask": "GetJob", "body": {"job_id": "a", "x": 1}}', (1, "body.x")),
        ('{"id": 1, "ask": "GetJob", "body": []}', (1, "body")),
        ('{"id": 1, "ask": "GetJob", "body": {"job_id": "a"}, "key": "k"}', (1, "key")),
        ('{"id": 1, "ask": "CancelJob", "body": {"job_id": "a"}, "key": "a b"}', (1, "key")),
        ('{"id": 1, "watch": {}}', (1, "ask")),
        ('{"id": 1, "watch": {"colour": {}}}', (1, "watch.colour")),
        ('{"id": 1, "watch": {"story": {}, "orders": {}}}', (1, "watch.story")),
        ('{"id": 1, "watch": {"story": {"after": -2}}}', (1, "watch.story.after")),
        ('{"id": 1, "watch": {"orders": {"worker_id": "w"}}}', (1, "watch.orders.incarnation")),
        ('{"id": 1, "ask": "GetOverview", "body": {"a": NaN}}', (None, "body")),
        ("\ud800", (None, "message")),
    ],
)
def test_a_wrong_frame_is_answered_and_changes_nothing(
    frame: str, where: tuple[int | None, str]
) -> None:
    session = NativeSession()
    assert problem(session.received(frame)) == where
    (action,) = session.received('{"id": 1, "ask": "GetOverview"}')
    assert isinstance(action, Put)


def test_what_breaks_the_rules_ends_the_connection() -> None:
    session = NativeSession()
    (close,) = session.received(b"{}")
    assert isinstance(close, Close)
    assert close.code == UNSUPPORTED_KIND
    for long in ("x" * (MESSAGE_BYTES_MAX + 1), "\u00e4" * (MESSAGE_BYTES_MAX // 2 + 1)):
        (close,) = session.received(long)
        assert isinstance(close, Close)
        assert close.code == MESSAGE_TOO_BIG


def test_a_number_in_use_is_refused_until_it_is_answered() -> None:
    session = NativeSession()
    frame = ask_frame(1, CancelJob("17"), "").decode()
    session.received(frame)
    assert problem(session.received(frame)) == (1, "id")
    assert problem(session.received(watch_frame(1, WatchStory()).decode())) == (1, "id")
    session.answered(1, CHANGED)
    (action,) = session.received(frame)
    assert isinstance(action, Put)


def test_questions_in_flight_are_bounded() -> None:
    session = NativeSession()
    for tag in range(1, IN_FLIGHT_MAX + 1):
        (action,) = session.received(ask_frame(tag, GetJob("17"), "").decode())
        assert isinstance(action, Put)
    (sent,) = session.received(ask_frame(IN_FLIGHT_MAX + 1, GetJob("17"), "").decode())
    assert isinstance(sent, SendFrame)
    heard = hear(sent.text)
    assert isinstance(heard, Refused)
    assert isinstance(heard.error, LimitReached)
    session.refused(1, Conflict("no"))
    (action,) = session.received(ask_frame(IN_FLIGHT_MAX + 2, GetJob("17"), "").decode())
    assert isinstance(action, Put)


FRAMES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "ask", "body", "key", "watch", "unwatch", "story", "job_id"]),
            inner,
        )
    ),
    max_leaves=10,
)


@given(st.lists(FRAMES.map(json.dumps) | st.text(max_size=60) | st.binary(max_size=9), max_size=6))
def test_any_frames_are_answered_and_never_raise(frames: list[str | bytes]) -> None:
    session = NativeSession()
    for frame in frames:
        for action in session.received(frame):
            if isinstance(action, SendFrame):
                told = json.loads(action.text)
                assert told["problem"]["status"] in (400, 429)
            elif isinstance(action, Put):
                session.refused(action.tag, Malformed("seen"))
            elif isinstance(action, Subscribe):
                session.ended(action.tag)


@given(st.text(max_size=80) | FRAMES.map(json.dumps))
def test_a_client_reads_or_refuses_any_frame(frame: str) -> None:
    where = "nothing is refused"
    try:
        hear(frame)
    except Malformed as error:
        where = error.where
    assert where


@given(st.lists(st.integers(0, 400), max_size=8))
def test_events_are_read_however_they_are_cut(cuts: list[int]) -> None:
    order = Samples(full=True).of(Order)
    pushes: list[Push] = [
        Moved(7, 1, "job", "x", "", "create", "queued", "line\nbreak \u00e4"),
        ProgressSeen("a", 0.5, "half"),
        OrderSeen(order),
        Lagged(3),
    ]
    stream = b": ping\n\n" + b"".join(map(encode_event, pushes)) + b"event: colour\ndata: {}\n\n"
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    reader = EventReader()
    heard = [push for begin, end in pairwise(places) for push in reader.feed(stream[begin:end])]
    assert heard == pushes
