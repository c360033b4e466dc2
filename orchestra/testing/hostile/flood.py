"""
A flood: submissions, introductions of workers, heartbeats and questions from several clients, far beyond what a server lets in.

What is accepted is done; what is not is refused with 429 or 503 and a word about when to come again; memory stays where it was.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping

import anyio
import attrs
import httpx
import psutil

from orchestra.testing.fuzz import FuzzBroken

LIMITS: Mapping[str, str] = {
    "ORCHESTRA_LIMITS_REQUESTS_PER_S": "3",
    "ORCHESTRA_LIMITS_REQUESTS_BURST": "20",
}
"""A small part of what the clients ask for, on any machine: a slow one that is busy with other things answers about 50 a second."""

FLOODER = "127.0.0.2"
"""Where the flood comes from: its share of the server is its own, and not that of whoever works at 127.0.0.1."""

REFUSED = frozenset({429, 503})
TAKEN = frozenset({200, 201, 204})
GROWTH_SHARE = 0.10
"""By which share memory may grow from the first tenth of the flood to its end."""

RATIO = 10.0
"""A flood is so many times as much as is taken; less shows nothing."""

GOES_ON_S = 60.0
"""
What may come at once is taken, so on a slow machine a short flood is less than that. Such a one goes on, until so long after its beginning.
"""

DONE_S = 300.0
"""What was accepted waits for its turn among programs of others."""

WARM = 10
"""Memory is looked at once a tenth of the flood is over: what a server takes once is not what it takes for ever."""

REST_S = 1.0
"""Between two looks at what is still to be done: to look is subject to the limits too."""

STAGE = {"name": "s", "app": "process", "template": {"argv": ["true"]}}
JOINING = {"name": "flooded", "session": "s", "slots": 1, "apps": ["nothing"]}


@attrs.frozen(slots=True)
class Flooded:
    """What came of it; the growth as a share of the memory after the first tenth."""

    asked: int
    taken: int
    refused: int
    jobs: int
    growth: float
    seconds: float

    @property
    def ratio(self) -> float:
        """How many times as much was asked as was taken."""
        return self.asked / max(1, self.taken)

    def broken(self) -> tuple[str, ...]:
        """What is promised and was not kept; empty when all was."""
        told: list[str] = []
        if self.ratio < RATIO:
            told.append(
                f"that was no flood: {self.ratio:.1f} times as much was asked as was taken, and not {RATIO:g} times"
            )
        if not self.jobs:
            told.append("no job was accepted in the flood, so nothing was seen to be done")
        return tuple(told)


class _Flood:
    def __init__(self, port: int, pid: int, least: int) -> None:
        self._base = f"http://127.0.0.1:{port}/api/v1"
        self._least = least
        self._end_s = time.monotonic() + GOES_ON_S
        self._process = psutil.Process(pid)
        self.statuses: Counter[int] = Counter()
        self.jobs: set[str] = set()
        self.first = self.largest = 0

    @property
    def asked(self) -> int:
        return self.statuses.total()

    @property
    def refused(self) -> int:
        return sum(self.statuses[status] for status in REFUSED)

    def _is_none_yet(self) -> bool:
        taken = self.asked - self.refused
        return self.asked < RATIO * taken and time.monotonic() < self._end_s

    async def client(self, number: int) -> None:
        """One of them: asks one kind after the other, and never waits because it is told to."""
        there = httpx.AsyncHTTPTransport(local_address=FLOODER)
        async with httpx.AsyncClient(base_url=self._base, timeout=DONE_S, transport=there) as http:
            turn = number
            while self.asked < self._least or self._is_none_yet():
                turn += 1
                await self._ask(http, number, turn)

    async def _ask(self, http: httpx.AsyncClient, number: int, turn: int) -> None:
        kind = turn % 4
        if kind == 0:
            job = {"name": "flood", "stages": [STAGE]}
            reply = await http.post(
                "/jobs", json=job, headers={"Idempotency-Key": f"{number}-{turn}"}
            )
            if reply.status_code in TAKEN:
                self.jobs.add(str(reply.json()["job_id"]))
        elif kind == 1:
            reply = await http.post("/workers", json={**JOINING, "name": f"flooded-{number}"})
        elif kind == 2:  # noqa: PLR2004 - of the four kinds
            beat: dict[str, object] = {"incarnation": 1, "holding": []}
            reply = await http.post("/workers/flooded/heartbeat", json=beat)
        else:
            reply = await http.get("/jobs?limit=50")
        self._count(reply)

    def _count(self, reply: httpx.Response) -> None:
        status = reply.status_code
        self.statuses[status] += 1
        if status in REFUSED and not reply.headers.get("retry-after", "").isdigit():
            raise FuzzBroken(f"{status} without a word about when to come again: {reply.text}")
        # Nobody of this name has joined: that it is told so costs its token like anything else.
        if status not in REFUSED | TAKEN | {404}:
            raise FuzzBroken(f"answered with {status}: {reply.text}")
        if self.asked * WARM >= self._least:
            size = self._process.memory_info().rss
            self.first = self.first or size
            self.largest = max(self.largest, size)

    async def done(self) -> None:
        """Wait until every job that was accepted has completed."""
        left = set(self.jobs)
        async with httpx.AsyncClient(base_url=self._base, timeout=DONE_S) as http:
            with anyio.fail_after(DONE_S):
                while left:
                    reply = await http.get("/jobs?limit=500")
                    if reply.status_code in TAKEN:
                        told = json.loads(reply.text)["items"]
                        left -= {each["id"] for each in told if each["status"] == "completed"}
                        if any(each["status"] in ("failed", "cancelled") for each in told):
                            raise FuzzBroken("a job that was accepted has failed")
                    await anyio.sleep(REST_S)


async def flood(port: int, pid: int, *, clients: int, requests: int) -> Flooded:
    """
    So many clients ask at least so often in all of a server under `LIMITS` that has a worker, until that is a flood.

    Raises:
        FuzzBroken: Something was refused without a word, answered otherwise, or memory grew by more than `GROWTH_SHARE`.
        TimeoutError: What was accepted is not done.
    """
    began = time.monotonic()
    all_of_them = _Flood(port, pid, requests)
    odd: list[FuzzBroken] = []
    async with anyio.create_task_group() as group:

        async def client(number: int) -> None:
            try:
                await all_of_them.client(number)
            except FuzzBroken as error:
                odd.append(error)
                group.cancel_scope.cancel()

        for number in range(clients):
            group.start_soon(client, number)
    if odd:
        raise odd[0]
    seconds = time.monotonic() - began
    growth = all_of_them.largest / all_of_them.first - 1
    if growth > GROWTH_SHARE:
        raise FuzzBroken(f"memory grew by {growth:.0%} under a flood")
    await all_of_them.done()
    asked, refused = all_of_them.asked, all_of_them.refused
    return Flooded(asked, asked - refused, refused, len(all_of_them.jobs), growth, seconds)
