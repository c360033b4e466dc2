"""
The surfaces that are fuzzed. A further one is a row of `SURFACES`: its name, what is fed, valid inputs, and a world.

A surface that is nothing but a reader, which takes its input or raises `errors.Malformed`, needs no world of its own: `Reader`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from types import MappingProxyType

import attrs

from orchestra.config import configure, parse_address
from orchestra.dialects import project_file, units
from orchestra.dialects.native_calls import BodyInput
from orchestra.dialects.native_table import OPERATIONS
from orchestra.dialects.strict_json import check_json
from orchestra.errors import Malformed
from orchestra.statemachine.records import KIND_OF, KINDS
from orchestra.storage.codec import KIND_NUMBERS, RowCodec, Unreadable
from orchestra.testing import (
    fuzz_answers,
    fuzz_flamenco_answers,
    fuzz_flamenco_worker,
    fuzz_tango_answers,
    store_samples,
)
from orchestra.testing.fuzz import Surface
from orchestra.testing.fuzz_dialects import (
    FlamencoWorld,
    RunnerWorld,
    flamenco_requests,
    runner_requests,
)
from orchestra.testing.fuzz_frames import MUTATIONS, corpus_of
from orchestra.testing.fuzz_sockets import FrameWorld
from orchestra.testing.fuzz_tango import (
    MemberWorld,
    PipelineWorld,
    member_requests,
    pipeline_requests,
)
from orchestra.testing.fuzz_worlds import ChannelWorld, HttpWorld

JOB = {"name": "j", "stages": [{"name": "s", "app": "app", "over": [1, 2], "needs": {"cpu": 1}}]}
REPORT = {"attempt_id": "ATTEMPT", "happening": "completed", "result": {"a": 1}}
JOINING = {"name": "w2", "session": "s", "slots": 2, "apps": ["app"], "labels": ["gpu"]}

CALLS: tuple[tuple[str, str, object], ...] = (
    ("POST", "/jobs", JOB),
    ("GET", "/jobs?limit=5&status=running", None),
    ("GET", "/jobs/last", None),
    ("GET", "/jobs/1/tasks?after=", None),
    ("GET", "/jobs/1/results", None),
    ("POST", "/jobs/JOB/cancel", {"grace_ms": 5, "reason": "no"}),
    ("POST", "/jobs/JOB/pause", {}),
    ("GET", "/tasks/1.1", None),
    ("GET", "/why/1.1", None),
    ("GET", "/overview", None),
    ("GET", "/health", None),
    ("POST", "/projects", {"name": "p"}),
    ("POST", "/workers", JOINING),
    ("POST", "/workers/WORKER/heartbeat", {"incarnation": 1, "holding": ["ATTEMPT"]}),
    ("POST", "/workers/WORKER/reports", {"incarnation": 1, "reports": [REPORT]}),
    ("PATCH", "/settings", {"lease_ms": 9_000}),
    ("GET", "/events?after=0&limit=10", None),
)
"""One call of each kind, well-formed."""

ASKED: tuple[tuple[str, object], ...] = (
    ("SubmitJob", JOB),
    ("GetJob", {"job_id": "last"}),
    ("CancelJob", {"job_id": "JOB"}),
    ("JoinWorker", JOINING),
    ("Heartbeat", {"worker_id": "WORKER", "incarnation": 1, "holding": ["ATTEMPT"]}),
    ("AttemptsReported", {"worker_id": "WORKER", "incarnation": 1, "reports": [REPORT]}),
    ("ListTasks", {"job_id": "1", "limit": 5}),
    ("Why", {"subject": "1.1"}),
)

PROJECT = b"""[project]
name = "p"
[stages.a]
argv = ["true", "{item}"]
over = "1-24"
needs = { cpu = 1, memory = "2GiB" }
timeout = "5m"
[stages.b]
argv = ["true"]
over = { C = [1, 10], side = "1-3" }
after = ["a"]
retries = 3
"""

SETTINGS = b"""listen = "127.0.0.1:8440"
data = "farm.db"
allowed_hosts = ["a.example"]
lease_ms = 6000
[limits]
idle_ms = 60_000
body_bytes_max = 1048576
[dialects]
tango = "127.0.0.1:9000"
"""

VALUES = (b"1h30m", b"90s", b"2GiB", b"10MB", b"127.0.0.1:80", b"[::1]:0", b"1d", b"500ms")


def _requests() -> list[bytes]:
    found: list[bytes] = []
    for method, path, asked in CALLS:
        body = b"" if asked is None else json.dumps(asked).encode()
        head = f"{method} /api/v1{path} HTTP/1.1\r\nHost: 127.0.0.1\r\n".encode()
        if not body:
            found.append(head + b"\r\n")
            continue
        head += b"Content-Type: application/json\r\n"
        found.append(head + b"Content-Length: %d\r\n\r\n" % (len(body) + 24) + body + b" " * 24)
        chunk = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
        found.append(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    return found


def _messages() -> list[bytes]:
    texts = [json.dumps({"id": 1, "ask": name, "body": body}).encode() for name, body in ASKED]
    watched = b'{"id": 2, "watch": {"story": {"after": 0}}}\n{"id": 2, "unwatch": true}'
    return [*texts, b"\n".join(texts[:2]), watched]


def _bodies() -> list[bytes]:
    return [json.dumps(body).encode() for _, body in ASKED]


def _read_body(raw: bytes) -> None:
    """Every operation that takes a body reads this one, as it is and as a message on a channel."""
    check_json(raw)
    json.loads(raw)
    refused: Malformed | None = None
    for operation in OPERATIONS:
        if isinstance(operation.input, BodyInput):
            try:
                operation.input.codec.decode(raw)
            except Malformed as error:
                refused = error
            else:
                return
    if refused is not None:
        raise refused


def _rows() -> list[bytes]:
    codec = RowCodec()
    return [
        KIND_OF[type(row)].encode() + b"\n" + row.id.encode() + b"\n" + codec.encode(row)
        for row in store_samples.world()
    ]


def _read_row(raw: bytes) -> None:
    """A row under a kind and an id. The checksum is mended in rows of even length, so that what lies behind it is reached."""
    kind, _, rest = raw.partition(b"\n")
    id, _, body = rest.partition(b"\n")
    name = kind.decode(errors="replace")
    if name not in KINDS:
        raise Malformed("there is no such kind", where="kind")
    codec = RowCodec()
    try:
        codec.decode(name, id.decode(errors="replace"), _mended(name, body))
    except Unreadable as error:
        raise Malformed(str(error)) from error


def _mended(kind: str, body: bytes) -> bytes:
    """The same payload under a checksum that fits, as a program with a bug would have stored it."""
    if len(body) < 6 or len(body) % 2:  # noqa: PLR2004 - version and checksum
        return body
    version = int.from_bytes(body[:2], "little")
    seed = zlib.crc32(struct.pack("<HH", KIND_NUMBERS[kind], version))
    return struct.pack("<HI", version, zlib.crc32(body[6:], seed)) + body[6:]


def _address(text: str) -> object:
    try:
        return parse_address(text)
    except ValueError as error:
        raise Malformed(str(error)) from error


def _read_value(raw: bytes) -> None:
    """Each reader reads it; one that takes it is enough."""
    text = raw.decode(errors="surrogateescape")
    readers: tuple[Callable[[str], object], ...] = (units.duration_ms, units.size_bytes, _address)
    if not any([Reader(lambda _, read=read: read(text)).feed(raw) for read in readers]):  # noqa: C419 - each reader reads it
        raise Malformed("it is neither a duration, a size nor an address")


@attrs.frozen(slots=True)
class Reader:
    """A world without a state: what is fed is read, or refused with `Malformed`."""

    read: Callable[[bytes], object]

    def feed(self, raw: bytes) -> bool:
        """As `fuzz.World.feed`."""
        try:
            self.read(raw)
        except Malformed:
            return False
        return True


def reader(
    name: str, about: str, corpus: Callable[[], Sequence[bytes]], read: Callable[[bytes], object]
) -> Surface:
    """A surface that is nothing but a reader."""
    return Surface(name, about, corpus, lambda: Reader(read))


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")


_ALL = (
    Surface(
        "http", "bytes of requests: scanner, parser, door, application, core", _requests, HttpWorld
    ),
    Surface("channel", "messages of a websocket: session, core, session", _messages, ChannelWorld),
    Surface(
        "frames",
        "bytes of websocket frames: parser, guard, application, session, core",
        lambda: corpus_of([message for message in _messages() if b"\n" not in message]),
        FrameWorld,
        MUTATIONS,
    ),
    Surface("job-runner", "bytes of requests to the job runner", runner_requests, RunnerWorld),
    Surface(
        "flamenco", "bytes of requests to Flamenco's manager", flamenco_requests, FlamencoWorld
    ),
    Surface(
        "flamenco-worker",
        "bytes of requests to a worker of Flamenco",
        fuzz_flamenco_worker.worker_requests,
        fuzz_flamenco_worker.WorkerWorld,
        fuzz_flamenco_worker.MUTATIONS,
    ),
    Surface(
        "flamenco-answers",
        "bytes of what Flamenco's manager answers its worker",
        fuzz_flamenco_answers.answers,
        fuzz_flamenco_answers.AnswerWorld,
        (*fuzz_answers.MUTATIONS, fuzz_flamenco_worker.smuggle, fuzz_flamenco_worker.smuggle),
    ),
    Surface(
        "tango", "bytes of requests to TANGO's Project Manager", pipeline_requests, PipelineWorld
    ),
    Surface(
        "tango-member",
        "bytes of requests to a member container of TANGO",
        member_requests,
        MemberWorld,
    ),
    Surface(
        "tango-answers",
        "bytes of what TANGO's containers and Project Managers answer",
        fuzz_tango_answers.answers,
        fuzz_tango_answers.AnswerWorld,
        fuzz_answers.MUTATIONS,
    ),
    reader("json", "bodies of every operation", _bodies, _read_body),
    reader(
        "project",
        "project files",
        lambda: [PROJECT],
        lambda raw: project_file.parse(_text(raw), folder="/"),
    ),
    reader("config", "settings files", lambda: [SETTINGS], lambda raw: configure(toml=_text(raw))),
    reader("rows", "stored rows", _rows, _read_row),
    reader(
        "values", "durations, sizes and addresses of the command line", lambda: VALUES, _read_value
    ),
)
SURFACES = MappingProxyType({surface.name: surface for surface in _ALL})
"""By name."""
