"""
A worker of Flamenco that is called, as a surface: valid calls, a world that runs what it is asked to, and looks at it first.

Whatever comes, no program is run that the operator did not name, and none is given code or a path from afar.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from urllib.parse import quote_plus

from orchestra.config import Address, DialectPort
from orchestra.dialects.far_calls import FarCall, FarReply
from orchestra.dialects.flamenco_worker import flamenco_worker
from orchestra.dialects.flamenco_worker_programs import CODE_WORDS
from orchestra.dialects.flamenco_worker_push import BUSY, IDLE
from orchestra.dialects.flamenco_worker_reports import Parcels, Surroundings
from orchestra.dialects.wire import Dialect
from orchestra.ports import Log, LogRead
from orchestra.statemachine.replies import Order
from orchestra.testing.fuzz import FuzzBroken
from orchestra.testing.fuzz_answers import without_threads
from orchestra.testing.fuzz_dialects import FORM, call_of, in_every_form
from orchestra.testing.fuzz_tango import Crew
from orchestra.testing.fuzz_worlds import HttpWorld
from orchestra.worker.detect import Shares

PROGRAMS = {"simple_blender_render": "/usr/bin/blender", "shell": "/bin/sh"}
LABEL = "embedded"
ROUNDS_MAX = 8
"""Until a worker asks for the next task: it takes three when all is well, and one more for each answer that comes to nothing."""

LOG = b"Fra:5 Mem:1M\nSaved: '%b/22/output/22/0005.png' Time: 00:01\n"

ARGV = ["/usr/bin/blender", "-b", "/srv/a.blend", "-o", "/srv/out/####", "-s", "5"]
EXECUTED = {
    "task_id": "22",
    "task_parser": "blender_render",
    "settings": "{}",
    "task_command": json.dumps(ARGV),
}
SCRIPT = json.dumps(["simple_blender_render", "--python", "/code/settings.py", "x.blend"])

OK = 200
NEXT = call_of("POST /execute_task", **{**EXECUTED, "task_id": "99"})

CALLS = (
    call_of("GET /"),
    call_of("GET /info"),
    call_of("GET /run_info"),
    call_of("GET /pid"),
    call_of("POST /execute_task", **EXECUTED),
    call_of("POST /execute_task", **{**EXECUTED, "task_id": "23", "task_command": SCRIPT}),
    call_of("POST /execute_task", task_id="24", task_command='["shell", "-x", "{y}"]'),
    call_of("DELETE /kill"),
    call_of("DELETE /kill/4321"),
)


SMUGGLED = (
    "--python-expr", "import os", "--python-console", "-y", "-c", "--command=x", "--python", "-P", "/etc/passwd", "//etc/passwd",
    "/srv/../etc/passwd", "../../etc", "--x=../../etc", "C:\\windows", "\\\\host\\share", "/srv", "==jobpath==../../x",
    "==command==", "\x00",
)  # fmt: skip
"""Arguments that a worker may not give to a program, and some that look like them."""

ESCAPES = (
    b"%ff",
    b"%00",
    b"%",
    b"%zz",
    b"%C0%80",
    b"%ED%A0%80",
    b"%0d%0a",
    b"&&",
    b"&=",
    b"&task_id=1",
    b"&a=b" * 80,
    b"+",
)
"""Pieces that readers of forms trip over."""


def smuggle(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """Among the arguments of a command, however they are written, come some that nobody allowed."""
    del corpus
    words = [rng.choice(SMUGGLED) for _ in range(rng.choice((1, 1, 2)))]
    more = "".join(f", {json.dumps(word)}" for word in words)
    for text, end in (
        (quote_plus(more), quote_plus('"]')),
        (json.dumps(more)[1:-1], '\\"]'),
        (more, '"]'),
    ):
        before, found, rest = raw.partition(end.encode())
        if found:
            mark = found[: -len(quote_plus("]"))] if "%" in end else found[:-1]
            return before + mark + text.encode() + found[len(mark) :] + rest
    return raw + more.encode()


def escape(rng: random.Random, raw: bytes, corpus: Sequence[bytes]) -> bytes:
    """A form that is written otherwise than forms are."""
    del corpus
    places = [at for at, byte in enumerate(raw) if byte in b"%&=?"] or [len(raw)]
    at = rng.choice(places)
    return raw[:at] + rng.choice(ESCAPES) + raw[at + rng.choice((0, 0, 1, 3)) :]


MUTATIONS = (smuggle, escape)


class Farm(Crew):
    """The small world with who runs programs: looks at what it is given to run."""

    def __init__(self, work: str = "") -> None:
        super().__init__("process", (LABEL,))
        self._work = work

    async def log(self, query: object) -> LogRead:
        """What a program wrote."""
        text = LOG % self._work.encode()
        first = isinstance(query, Log) and (query.stream, query.offset) == ("stdout", 0)
        return LogRead(text if first else b"", len(text))

    def look_at(self, order: Order) -> None:
        """As `Crew.look_at`."""
        program, *words = json.loads(order.template)["argv"]
        if program not in PROGRAMS.values():
            raise FuzzBroken(f"{program!r} is to be run, which nobody allowed")
        roots = ("/srv/", "/code/", f"{self._work}/" if self._work else "/srv/")
        for word in words:
            if word in CODE_WORDS:
                raise FuzzBroken(f"{word!r} is to be run, which is code from afar")
            if word.startswith("/") and (not word.startswith(roots) or ".." in word.split("/")):
                raise FuzzBroken(f"{word!r} is to be worked on, which lies elsewhere")


def worker_of(parcels: Parcels, now_ms: Callable[[], int], **options: object) -> Dialect:
    """A worker with these options beside the usual."""
    table = {"manager": "127.0.0.1:7777", "hostname": "render-1", "programs": PROGRAMS}
    table |= {"roots": ["/srv"], "scripts": ["/code"], **options}
    surroundings = Surroundings(
        now_ms,
        parcels,
        lambda host: frozenset({host}),
        "machine",
        "Linux 6.1",
        7,
        lambda: Shares((1.0, 2.0, 3.0), 7.0, 90.7, 56.7, "x86_64", 16),
        lambda _: 4_321,
        (LABEL,),
    )
    port = DialectPort("flamenco-worker", Address("127.0.0.1", 5_000), table)
    return without_threads(flamenco_worker(port, surroundings))


class _Taking:
    """A manager that takes whatever is told."""

    def call(self, call: FarCall) -> FarReply | None:
        """Taken."""
        del call
        return FarReply(204, b"")

    def send(self, call: FarCall, field: str, path: str) -> FarReply | None:
        """Taken, if it is a picture of the operator's folders."""
        if field != "file" or not path.startswith("/srv/"):
            raise FuzzBroken(f"{path!r} is sent to the manager")
        return self.call(call)

    def fetch(self, call: FarCall, folder: str) -> int | None:
        """A worker that is called fetches nothing."""
        raise FuzzBroken(f"{call.path} is fetched into {folder!r}")

    def clear(self, folder: str) -> None:
        """It has no folder."""
        raise FuzzBroken(f"{folder!r} is cleared away")

    def prepare(self, folder: str) -> None:
        """It has no folder."""
        raise FuzzBroken(f"{folder!r} is made")


class WorkerWorld(HttpWorld):
    """Requests to a worker, which is done with its task when it was asked for one more, and has the next one then."""

    _PLANNED = frozenset({(500, BUSY.body), (500, IDLE.body), (503, b"")})
    """As the original answers: one task at a time, no process without one, and what runs is not told."""

    def __init__(self) -> None:
        farm = self._farm = Farm()
        self._dialect = worker_of(_Taking(), lambda: farm.core.now_ms, protocol="push")
        super().__init__(lambda _: self._dialect, small=farm)
        self._busy = False

    def is_planned(self, status: int, answer: bytes) -> bool:
        """As `HttpWorld.is_planned`."""
        self._busy = self._busy or (status, answer) == (500, BUSY.body)
        return (status, answer) in self._PLANNED or super().is_planned(status, answer)

    def feed(self, raw: bytes) -> bool:
        """As `HttpWorld.feed`."""
        taken = super().feed(raw)
        self._farm.work()
        if self._busy:
            self._busy = False
            self._finish()
        return taken

    def _finish(self) -> None:
        (chore,) = self._dialect.chores
        for _ in range(ROUNDS_MAX):
            self._farm.carry_out(chore.begin())
            self._farm.work()
            if self.call("POST", "/execute_task", NEXT.body, FORM)[0] == OK:
                return
        raise FuzzBroken("the worker is never done with its task")


def worker_requests() -> Sequence[bytes]:
    """The corpus."""
    return in_every_form(CALLS)
