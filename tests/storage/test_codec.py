from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.errors import Defect
from orchestra.ports import Moved
from orchestra.statemachine.records import KIND_OF, KINDS, Record, Settings
from orchestra.storage.codec import (
    KIND_NUMBERS,
    UPGRADES,
    VERSIONS,
    RowCodec,
    Unreadable,
    decode_story,
    encode_story,
)
from orchestra.testing import store_samples as samples
from tests.storage import drawn

CODEC = RowCodec()
WORLD = samples.world()
GOLDEN = Path(__file__).with_name("rows_v1.json")
"""Rows as version 1 of each kind wrote them; what is in this file can be read for ever."""


@given(drawn.records())
def test_every_record_comes_back(record: Record) -> None:
    kind = KIND_OF[type(record)]
    assert CODEC.decode(kind, record.id, CODEC.encode(record)) == record


def test_every_kind_has_a_number_and_a_version_and_all_upgrades() -> None:
    assert KIND_NUMBERS.keys() == KINDS.keys() == VERSIONS.keys()
    assert len(set(KIND_NUMBERS.values())) == len(KINDS)
    assert set(UPGRADES) == {
        (kind, version) for kind, newest in VERSIONS.items() for version in range(1, newest)
    }


@pytest.mark.parametrize("record", WORLD, ids=lambda record: KIND_OF[type(record)])
def test_every_damaged_byte_is_noticed(record: Record) -> None:
    kind = KIND_OF[type(record)]
    body = CODEC.encode(record)
    for place in range(len(body)):
        damaged = bytearray(body)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(Unreadable) as found:
            CODEC.decode(kind, record.id, bytes(damaged))
        assert (found.value.kind, found.value.id) == (kind, record.id)
    for length in range(len(body)):
        with pytest.raises(Unreadable):
            CODEC.decode(kind, record.id, body[:length])


def test_a_row_under_another_kind_or_id_is_noticed() -> None:
    project, worker = WORLD[0], WORLD[1]
    with pytest.raises(Unreadable, match="checksum"):
        CODEC.decode("worker", project.id, CODEC.encode(project))
    with pytest.raises(Unreadable, match="lies under this id"):
        CODEC.decode("worker", project.id, CODEC.encode(worker))


def stored(kind: str, fields: object, version: int = 1) -> bytes:
    payload = msgspec.msgpack.encode(fields)
    seed = zlib.crc32(KIND_NUMBERS[kind].to_bytes(2, "little") + version.to_bytes(2, "little"))
    head = version.to_bytes(2, "little") + zlib.crc32(payload, seed).to_bytes(4, "little")
    return head + payload


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"id": "settings", "lease_ms": "soon"}, r"Expected `int`, got `str` - at `\$.lease_ms`"),
        ({"id": 7}, r"at `\$.id`"),
        ([], "Expected `object`"),
        (None, "Expected `object`"),
    ],
)
def test_a_row_with_wrong_types_is_named_with_its_field(fields: object, problem: str) -> None:
    with pytest.raises(Unreadable, match=problem):
        CODEC.decode("settings", "settings", stored("settings", fields))


def test_a_field_with_a_default_may_be_missing_and_an_unknown_one_there() -> None:
    body = stored("settings", {"id": "settings", "colour": "red"})
    assert CODEC.decode("settings", "settings", body) == Settings()


def test_rows_of_older_versions_are_upgraded_step_by_step() -> None:
    def rename(fields: dict[str, Any]) -> dict[str, Any]:
        fields["lease_ms"] = fields.pop("lease_s") * 1_000
        return fields

    def double(fields: dict[str, Any]) -> dict[str, Any]:
        return fields | {"heartbeat_ms": fields["heartbeat_ms"] * 2}

    newer = RowCodec(
        {**VERSIONS, "settings": 3}, {("settings", 1): rename, ("settings", 2): double}
    )
    old = {"id": "settings", "lease_s": 9, "heartbeat_ms": 100}
    expected = Settings(lease_ms=9_000, heartbeat_ms=200)
    assert newer.decode("settings", "settings", stored("settings", old)) == expected
    middle = {"id": "settings", "lease_ms": 5, "heartbeat_ms": 100}
    expected = Settings(lease_ms=5, heartbeat_ms=200)
    assert newer.decode("settings", "settings", stored("settings", middle, 2)) == expected
    assert newer.decode("settings", "settings", newer.encode(expected)) == expected
    with pytest.raises(Unreadable, match="version 3 is not known"):
        CODEC.decode("settings", "settings", newer.encode(expected))


def test_a_version_without_an_upgrade_stops_the_start() -> None:
    with pytest.raises(Defect, match="no upgrade from version 1"):
        RowCodec({**VERSIONS, "job": 2}, {})


def test_what_has_no_stored_form_is_a_defect() -> None:
    for broken in ("\ud800", 2**70, object()):
        with pytest.raises(Defect, match="settings 'settings' can not be stored"):
            CODEC.encode(attrs.evolve(Settings(), lease_ms=broken))  # type: ignore[arg-type]  # wrong on purpose


def test_rows_of_every_release_can_be_read() -> None:
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert {kind for kind, *_ in golden} == set(KINDS)
    found = [CODEC.decode(kind, id, bytes.fromhex(body)) for kind, id, body in golden]
    assert found == list(WORLD)


@given(st.lists(drawn.built(Moved), min_size=1, max_size=5))
def test_the_story_comes_back(entries: list[Moved]) -> None:
    numbered = tuple(attrs.evolve(each, number=7 + n) for n, each in enumerate(entries))
    assert tuple(decode_story(7, encode_story(numbered))) == numbered


def test_a_damaged_segment_of_the_story_is_noticed() -> None:
    body = encode_story(tuple(samples.moved(1 + n, row) for n, row in enumerate(WORLD)))
    for place in range(0, len(body), 7):
        damaged = bytearray(body)
        damaged[place] ^= 0x10
        with pytest.raises(Unreadable, match="story 1:"):
            decode_story(1, bytes(damaged))
    with pytest.raises(Unreadable, match="cut off"):
        decode_story(1, body[:3])
