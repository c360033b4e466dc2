from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.dialects.strict_json import DEPTH_MAX, INTEGER_MAX, check_json
from orchestra.errors import Malformed

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-INTEGER_MAX - 1, INTEGER_MAX)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_every_plain_value_passes(value: object, ascii_only: bool) -> None:
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "c"),
        (b'{"a":1,"a":2}', "a"),
        (b'{"a":1,"a" :2}', "a"),
        (b'{"a":1,"a"\n:2}', "a"),
        (b'{"a":1,"a":"\\u0022:"}', "a"),
        (b'{"a":1,"a":"\\u003a"}', "a"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{"a":":","a":":"}', "a"),
        (b'{"a":"\\":","a":1}', "a"),
        (b'[{"a":NaN}]', "body"),
        (b'{"a": NaN}', "body"),
        (b'{"a": -Infinity}', "body"),
        (b'{"a": 9223372036854775808}', "body"),
        (b'{"a": -9223372036854775809}', "body"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "body"),
        (b'{"a": 1e400}', "body"),
        (b'{"a": ' + b"1" * 400 + b".5}", "body"),
        (b'{"a": "\\ud800"}', "body"),
        (b'{"a": "\xff"}', "byte 7"),
        (b'{"a": "\xed\xa0\x80"}', "byte 7"),
        (b"", "character 0"),
        (b"{", "character 1"),
        (b'{"a": 1} 2', "character 9"),
        (b"{'a': 1}", "character 1"),
        (b'{"a": "\n"}', "character 7"),
        (b"\xef\xbb\xbf{}", "character 0"),
        (b"[" * 100_000, "body"),
        (b'{"a":' * 50_000, "body"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "body"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else None,
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, where: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_json(body)
    assert caught.value.where == where


@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEPTH_MAX + b"]" * DEPTH_MAX,
        b'["' + b"[" * 1_000 + b'"]',
        b'["\\"' + b"[{" * 100 + b'\\\\"]',
        b"[" + b"[],{}," * 1_000 + b"[]]",
        b'{"a": 9223372036854775807, "b": -9223372036854775808, "c": 1e99, "d": 0.1234567890123456789}',
        b'{"a": "\\ud83c\\udfbc 1234567890123456789012 1e999"}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_only_looks_dangerous_passes(body: bytes) -> None:
    check_json(body)


PAIRS = st.lists(
    st.tuples(st.sampled_from(["a", "b", ":", '":', "\\", '"', "é"]), VALUES),
    min_size=1,
    max_size=5,
)


@given(PAIRS, st.sampled_from([":", " :", ": ", "\t:\n"]), st.booleans())
def test_names_are_counted_whatever_they_and_the_values_look_like(
    pairs: list[tuple[str, object]], colon: str, ascii_only: bool
) -> None:
    def written(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    body = "{" + ",".join(written(name) + colon + written(value) for name, value in pairs) + "}"
    twice = len({name for name, _ in pairs}) < len(pairs)
    refused = False
    try:
        check_json(body.encode())
    except Malformed as error:
        refused = error.message.startswith("this name comes twice")
    assert refused is twice


@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_verdict(body: bytes) -> None:
    where = ""
    try:
        check_json(body)
    except Malformed as error:
        where = error.where
    # What passes is JSON.
    assert where or json.dumps(json.loads(body))
