"""A server that asks for tokens, a worker whose name is bound, and what an impostor asks in its place."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import attrs

from orchestra.config import Address, Config
from orchestra.dialects.asks import AppendLog
from orchestra.dialects.wire import Role
from orchestra.errors import Forbidden, OrchestraError, Unauthenticated
from orchestra.ports import Asker, Log, LogChunk, Story, WatchOrders
from orchestra.statemachine.commands import (
    JoinWorker,
    LeaveWorker,
    Reconfigure,
    StageDraft,
    SubmitJob,
)
from orchestra.statemachine.queries import GetTask, ListWorkers
from orchestra.statemachine.reports import AttemptReport, AttemptsReported, Happening, Heartbeat
from orchestra.transports.asking import put
from orchestra.transports.connect import connect
from orchestra.transports.tokens import (
    Token,
    digest,
    draw_token,
    put_document,
    read_kept,
    write_tokens,
)
from tests.transports.far_ends import running, served

OURS = "render-1"
"""The worker that others want to be. Its token is called ``a``; ``b`` is bound to another, ``free`` to none."""

LEASE_MS = 3_600_000
"""No lease ends while a test is under way."""


@attrs.frozen
class World:
    """A server that asks for tokens, and a worker with an attempt."""

    path: str
    url: str
    tokens: Mapping[str, str]
    worker_id: str
    attempt_id: str

    @asynccontextmanager
    async def asker(self, name: str, scheme: str = "http") -> AsyncIterator[Asker]:
        async with connect(f"{scheme}://{self.url}", token=self.tokens[name]) as asker:
            yield asker

    async def looks(self) -> object:
        """All that an impostor could have changed."""
        async with self.asker("operator") as asker:
            workers = (await asker.answer(ListWorkers(gone=True))).items
            return (
                await asker.story(Story()),
                [(each.id, each.incarnation, each.status) for each in workers],
                await asker.answer(GetTask("1.1")),
                await asker.log(Log(self.attempt_id, "stdout")),
            )

    def rewrite(self, name: str, /, **fields: str) -> None:
        """Change the entry of a token by hand; an empty field is left out."""
        document = read_kept(self.path).document
        for entry in document["tokens"]:
            if entry["name"] == name:
                entry.update(fields)
                for field in [field for field, text in fields.items() if not text]:
                    del entry[field]
        put_document(self.path, document, os.replace)


@contextmanager
def guarded(path: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """A server with a token of each kind; where it is, where its tokens are, and what they are."""
    kinds = [
        ("operator", Role.OPERATOR, ""),
        ("viewer", Role.VIEWER, ""),
        ("free", Role.WORKER, ""),
        ("a", Role.WORKER, OURS),
        ("b", Role.WORKER, "render-2"),
    ]
    secrets = {name: draw_token() for name, _, _ in kinds}
    file = str(path / "tokens")
    kept = [Token(name, role, digest(secrets[name]), worker) for name, role, worker in kinds]
    write_tokens(file, kept, {})
    config = Config(listen=Address("127.0.0.1", 0), token_file=file, require_token=True)
    with served(running, config) as server:
        yield str(server.address), file, {name: each.reveal() for name, each in secrets.items()}


def introduction(name: str, session: str, holding: tuple[str, ...] = ()) -> JoinWorker:
    return JoinWorker(name, session, 1, ("render",), holding=holding)


@asynccontextmanager
async def world_at(path: Path) -> AsyncIterator[World]:
    with guarded(path) as (url, file, tokens):
        async with connect(f"http://{url}", token=tokens["operator"]) as asker:
            await asker.ask(Reconfigure(lease_ms=LEASE_MS))
            await asker.ask(SubmitJob("shot", (StageDraft("render", "render"),)))
        async with connect(f"http://{url}", token=tokens["a"]) as asker:
            joined = await asker.ask(introduction(OURS, "ours"))
            beat = await asker.ask(Heartbeat(joined.worker_id, joined.incarnation))
        (order,) = beat.orders
        yield World(file, url, tokens, joined.worker_id, order.attempt_id)


ASKS: dict[type[Any], Callable[[World], Any]] = {
    WatchOrders: lambda world: WatchOrders(world.worker_id, 1),
    Heartbeat: lambda world: Heartbeat(world.worker_id, 1),
    AppendLog: lambda world: AppendLog(
        world.worker_id, 1, (LogChunk(world.attempt_id, "stdout", 0, b"forged"),)
    ),
    AttemptsReported: lambda world: AttemptsReported(
        world.worker_id, 1, (AttemptReport(world.attempt_id, Happening.COMPLETED, b'"forged"'),)
    ),
    LeaveWorker: lambda world: LeaveWorker(world.worker_id, 1),
    JoinWorker: lambda world: introduction(OURS, "theirs", (world.attempt_id,)),
}
"""What an impostor asks at each route, in an order in which none is in the way of the next."""


async def passed(asker: Asker, asked: Any) -> OrchestraError | None:
    """None when it was taken, else why not."""
    try:
        if isinstance(asked, WatchOrders):
            async with asker.watch(asked):
                return None
        await put(asker, asked)
    except (Forbidden, Unauthenticated) as error:
        return error
    return None
