"""
Rows as bytes, and back: a schema version, a checksum, and the record's fields by name in MessagePack.

::

    0      2          6
    | u16  |   u32    |  MessagePack map: field name -> value
    | version | CRC-32 |

Numbers are little-endian. The checksum covers the kind, the version and the payload, so that a row which a disk or a hand has
damaged, or that lies under another kind, is told from a good one before anything is made of it. Fields go by name, so a field
that is added with a default needs no new version; any other change of a record gets a version and an upgrade here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import msgspec

from orchestra.errors import Defect, ensure
from orchestra.ports import Moved
from orchestra.statemachine.records import KIND_OF, KINDS, Record
from orchestra.statemachine.story import Told

KIND_NUMBERS: Mapping[str, int] = MappingProxyType(
    {
        "project": 1,
        "job": 2,
        "stage": 3,
        "task": 4,
        "attempt": 5,
        "worker": 6,
        "receipt": 7,
        "counters": 8,
        "settings": 9,
    }
)
"""How a kind is stored. A number is never given to another kind."""

KIND_NAMES: Mapping[int, str] = MappingProxyType(
    {number: kind for kind, number in KIND_NUMBERS.items()}
)

VERSIONS: Mapping[str, int] = MappingProxyType(dict.fromkeys(KINDS, 1))
"""The schema version under which each kind is written now."""

Fields = dict[str, Any]
Upgrade = Callable[[Fields], Fields]
"""From the fields of one version, as plain values by name, to those of the next."""

UPGRADES: Mapping[tuple[str, int], Upgrade] = MappingProxyType({})
"""By kind and the version that is left behind. Empty as long as every kind is at version 1."""

_HEADER = struct.Struct("<HI")
_STORY_VERSION = 1
_STORY_DECODER = msgspec.msgpack.Decoder(list[tuple[int, str, str, str, str, str, str]])


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[object, object]", value))
    raise TypeError(f"{type(value).__name__} has no stored form")


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_plain)


class Unreadable(Exception):
    """A stored row that can not be read. Stays inside the stores."""

    def __init__(self, kind: str, id: str, problem: str) -> None:
        super().__init__(f"{kind} {id}: {problem}")
        self.kind = kind
        self.id = id
        self.problem = problem


class RowCodec:
    """
    Writes rows at the newest version, and reads them at any.

    Args:
        versions: The version that each kind is written at.
        upgrades: By (kind, version), how fields of that version become those of the next.
    """

    def __init__(
        self,
        versions: Mapping[str, int] = VERSIONS,
        upgrades: Mapping[tuple[str, int], Upgrade] = UPGRADES,
    ) -> None:
        for kind, newest in versions.items():
            for version in range(1, newest):
                ensure((kind, version) in upgrades, f"{kind}: no upgrade from version {version}")
        self._versions = versions
        self._upgrades = upgrades
        self._decoders = {kind: msgspec.msgpack.Decoder(record) for kind, record in KINDS.items()}
        self._seeds = {
            (kind, version): zlib.crc32(struct.pack("<HH", KIND_NUMBERS[kind], version))
            for kind, newest in versions.items()
            for version in range(1, newest + 1)
        }
        self._stamps = {
            record: (version, self._seeds[kind, version])
            for record, kind in KIND_OF.items()
            for version in [versions[kind]]
        }

    def encode(self, record: Record) -> bytes:
        """The stored form. Raises `Defect` for a field that has none: such a record must never get this far."""
        version, seed = self._stamps[type(record)]
        try:
            payload = _ENCODER.encode(record)
        except (TypeError, ValueError, OverflowError) as error:
            kind = KIND_OF[type(record)]
            raise Defect(f"{kind} {record.id!r} can not be stored: {error}") from error
        return _HEADER.pack(version, zlib.crc32(payload, seed)) + payload

    def decode(self, kind: str, id: str, body: object) -> Record:
        """
        The record that was stored under ``kind`` and ``id``, upgraded to the present version. ``body`` is what the database gives.

        Raises:
            Unreadable: The row is damaged, of a version that is not known, or not of this id.
        """
        version, checksum, payload = _parts(kind, id, body)
        seed = self._seeds.get((kind, version))
        if seed is None:
            raise Unreadable(kind, id, f"version {version} is not known here")
        if zlib.crc32(payload, seed) != checksum:
            raise Unreadable(kind, id, "the checksum does not fit")
        try:
            is_present = version == self._versions[kind]
            decode = self._decoders[kind].decode if is_present else self._upgrader(kind, version)
            record = decode(payload)
        except msgspec.ValidationError as error:
            raise Unreadable(kind, id, str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(kind, id, f"not MessagePack: {error}") from error
        if record.id != id:
            raise Unreadable(kind, id, f"the row of {record.id} lies under this id")
        return record

    def _upgrader(self, kind: str, version: int) -> Callable[[memoryview], Record]:
        def decode(payload: memoryview) -> Record:
            fields = msgspec.msgpack.decode(payload, type=Fields)
            for step in range(version, self._versions[kind]):
                fields = self._upgrades[kind, step](fields)
            return msgspec.convert(fields, KINDS[kind])

        return decode


def _parts(kind: str, id: str, body: object) -> tuple[int, int, memoryview]:
    """Version, checksum and the rest of a stored row. A damaged page can hold what the schema forbids, such as no value at all."""
    if not isinstance(body, bytes):
        raise Unreadable(kind, id, f"{type(body).__name__} in the place of bytes")
    if len(body) < _HEADER.size:
        raise Unreadable(kind, id, f"cut off after {len(body)} bytes")
    version, checksum = _HEADER.unpack_from(body)
    return version, checksum, memoryview(body)[_HEADER.size :]


def encode_story(story: Sequence[Moved]) -> bytes:
    """The stored form of consecutive story entries. Their numbers follow from the first one's, which is the key."""
    told = Told.of(story)
    try:
        payload = _ENCODER.encode(told.entries)
    except (TypeError, ValueError, OverflowError) as error:
        raise Defect(f"story entry {told.first} and on can not be stored: {error}") from error
    return _HEADER.pack(_STORY_VERSION, zlib.crc32(payload)) + payload


def decode_story(first: int, body: object) -> list[Moved]:
    """
    The entries that `encode_story` wrote, numbered from ``first`` on. ``body`` is what the database gives.

    Raises:
        Unreadable: The segment is damaged.
    """
    id = str(first)
    version, checksum, payload = _parts("story", id, body)
    if version != _STORY_VERSION:
        raise Unreadable("story", id, f"version {version} is not known here")
    if zlib.crc32(payload) != checksum:
        raise Unreadable("story", id, "the checksum does not fit")
    try:
        entries = _STORY_DECODER.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable("story", id, f"not MessagePack: {error}") from error
    return [Moved(first + place, *fields) for place, fields in enumerate(entries)]
