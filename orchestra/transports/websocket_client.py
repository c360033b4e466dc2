"""
The websocket client's end of the native channel: many questions under way at once over one connection.

The protocol library does no I/O; bytes come and go through an anyio stream, on asyncio and on trio. A lost connection fails everything
under way with `PeerClosed`; connecting again is the caller's matter.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import anyio.abc
from wsproto import WSConnection
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from orchestra.dialects.native_frames import (
    Ended,
    Heard,
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
from orchestra.dialects.native_session import IN_FLIGHT_MAX, MESSAGE_BYTES_MAX, REPLY_BYTES_MAX
from orchestra.dialects.native_table import BY_CLASS
from orchestra.dialects.session import MESSAGE_TOO_BIG, NORMAL_CLOSURE, UNSUPPORTED_KIND
from orchestra.dialects.wire import PING_S
from orchestra.errors import Malformed, OrchestraError, PeerClosed, Unavailable
from orchestra.ports import Push, Watch
from orchestra.transports.remote import ANSWER_S, RemoteAsker, told
from orchestra.transports.waiting import Mailbox, Question
from orchestra.transports.websocket_dial import (
    BROKEN,
    RECEIVE_BYTES,
    Place,
    dial,
    shake_hands,
)

SILENCE_S = 3 * PING_S
"""A connection that says nothing for so long, pongs included, is dead."""

QUESTIONS_MAX = IN_FLIGHT_MAX // 2
"""Questions under way at once; more wait here. The other half of what the server allows is for watches."""

UNSENT_BYTES_MAX = 2 * MESSAGE_BYTES_MAX
"""Bytes that wait for the network; beyond them callers wait."""

CLOSE_S = 1.0
"""At the end the server gets this long to take what was still to be sent."""


Bulk = Callable[[], AbstractAsyncContextManager[RemoteAsker]]


class WebsocketAsker(RemoteAsker):
    """
    A `ports.Asker` over one websocket. `open_websocket` makes it and runs what it needs.

    Args:
        stream: The open connection, past its handshake.
        protocol: The protocol's state, past its handshake.
        url: For messages.
        bulk: Opens a way for what is too long for one message here.
    """

    def __init__(
        self, stream: anyio.abc.ByteStream, protocol: WSConnection, url: str, bulk: Bulk
    ) -> None:
        self._stream = stream
        self._protocol = protocol
        self._url = url
        self._bulk = bulk
        self._last = 0
        self._asked: dict[int, Question] = {}
        self._watched: dict[int, Mailbox] = {}
        self._places = anyio.Semaphore(QUESTIONS_MAX, fast_acquire=True)
        self._unsent = bytearray()
        self._more = anyio.Event()
        self._room = anyio.Event()
        self._midway = False
        self._lost: OrchestraError | None = None
        self._text: list[str] = []
        self._text_size = 0

    # what callers use

    async def call(self, asked: Any, key: str = "") -> Any:
        """As `RemoteAsker.call`."""
        kind: type[Any] = asked.__class__
        if kind not in BY_CLASS:
            raise Malformed(f"{kind.__name__} can not be asked over a network")
        tag = self._next()
        frame = ask_frame(tag, asked, key)
        if len(frame) > MESSAGE_BYTES_MAX:
            async with self._bulk() as asker:
                return await asker.call(asked, key)
        async with self._places:
            heard = await self._answer_to(tag, frame)
        if not isinstance(heard, Replied):
            raise PeerClosed(f"{self._url} answered in a way that this version does not know")
        try:
            return reply_to(kind, heard.reply)
        except Malformed as error:
            raise Unavailable(f"the answer can not be read: {error}") from None

    @asynccontextmanager
    async def watch(self, watch: Watch) -> AsyncGenerator[AsyncIterator[Push]]:
        """As `ports.Asker.watch`."""
        tag = self._next()
        mailbox = Mailbox(watch)
        # Before it is asked for: pushes may follow the answer in the same packet.
        self._watched[tag] = mailbox
        try:
            await self._answer_to(tag, watch_frame(tag, watch))
            yield mailbox
        finally:
            if self._watched.pop(tag, None) is not None and self._lost is None:
                self._send(unwatch_frame(tag))

    def _next(self) -> int:
        self._last += 1
        return self._last

    async def _answer_to(self, tag: int, frame: bytes) -> Heard:
        """Send a question and wait. Raises what the server raised, or `Unavailable`."""
        question = Question()
        self._asked[tag] = question
        try:
            with anyio.fail_after(ANSWER_S):
                while len(self._unsent) > UNSENT_BYTES_MAX and self._lost is None:
                    await self._room.wait()
                if self._lost is not None:
                    raise self._lost
                self._send(frame)
                await question.done.wait()
        except TimeoutError:
            raise Unavailable(
                f"{self._url} did not answer in time; it is unknown whether it was done"
            ) from None
        finally:
            self._asked.pop(tag, None)
        heard = question.heard
        if isinstance(heard, OrchestraError):
            raise heard
        if isinstance(heard, Refused):
            raise heard.error
        if heard is None:
            raise PeerClosed("the connection ended")
        return heard

    # the connection

    def begin(self, early: Iterable[Event]) -> None:
        """Take in what came together with the server's answer to the handshake."""
        for event in early:
            self._happened(event)

    def _send(self, frame: bytes) -> None:
        self._queue(TextMessage(data=frame.decode()))

    def _queue(self, event: Event) -> None:
        try:
            self._unsent += self._protocol.send(event)
        except LocalProtocolError:
            self._lose(PeerClosed(f"the connection to {self._url} is closing"))
        self._more.set()

    async def write(self) -> None:
        """Carry out what is queued, in as few pieces as possible, until the connection is lost."""
        while True:
            if not self._unsent:
                self._more = anyio.Event()
                await self._more.wait()
            data, self._unsent = bytes(self._unsent), bytearray()
            self._room.set()
            self._room = anyio.Event()
            self._midway = True
            try:
                await self._stream.send(data)
                self._midway = False
            except BROKEN as error:
                self._lose(PeerClosed(f"the connection to {self._url} was lost: {told(error)}"))
                return

    async def read(self) -> None:
        """Take in what comes, until the connection is lost or silent."""
        while self._lost is None:
            try:
                with anyio.fail_after(SILENCE_S):
                    data = await self._stream.receive(RECEIVE_BYTES)
            except TimeoutError:
                self._lose(PeerClosed(f"{self._url} has been silent for {SILENCE_S:.0f} s"))
            except anyio.EndOfStream:
                self._lose(PeerClosed(f"{self._url} closed the connection"))
            except BROKEN as error:
                self._lose(PeerClosed(f"the connection to {self._url} was lost: {told(error)}"))
            else:
                self.take(data)

    async def ping(self) -> None:
        """Ask now and then whether the server is there: its answer keeps `read` patient."""
        while self._lost is None:
            await anyio.sleep(PING_S)
            if self._lost is None:
                self._queue(Ping())

    def take(self, data: bytes) -> None:
        """Bytes came."""
        try:
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                self._happened(event)
        except (RemoteProtocolError, LocalProtocolError) as error:
            self._lose(PeerClosed(f"{self._url} broke the rules of the protocol: {error}"))

    def _happened(self, event: Event) -> None:
        match event:
            case TextMessage(data=text, message_finished=finished):
                self._text.append(text)
                self._text_size += len(text)
                if self._text_size > REPLY_BYTES_MAX:
                    self._leave(MESSAGE_TOO_BIG, "a message is longer than any that I take")
                elif finished:
                    whole = "".join(self._text)
                    self._text, self._text_size = [], 0
                    self._hear(whole)
            case BytesMessage():
                self._leave(UNSUPPORTED_KIND, "this channel carries text")
            case Ping():
                self._queue(event.response())
            case CloseConnection(code=code, reason=reason):
                why = f"{code} {reason or ''}".strip()
                self._queue(event.response())
                self._lose(PeerClosed(f"{self._url} closed the connection ({why})"))
            case _:
                pass

    def _hear(self, text: str) -> None:
        try:
            heard = hear(text)
        except Malformed as error:
            self._leave(UNSUPPORTED_KIND, f"a message can not be read: {error}"[:100])
            return
        match heard:
            case Pushed(tag, push):
                mailbox = self._watched.get(tag)
                if mailbox is not None and push is not None:
                    mailbox.put(push)
            case Ended(tag):
                mailbox = self._watched.pop(tag, None)
                if mailbox is not None:
                    mailbox.end(None)
            case Replied(tag) | Watching(tag):
                self._settle(tag, heard)
            case Refused(tag, refusal):
                if tag is None:
                    self._lose(refusal)
                elif tag in self._asked:
                    self._settle(tag, heard)
                elif tag in self._watched:
                    self._watched.pop(tag).end(refusal)
            case None:
                pass

    def _settle(self, tag: int, heard: Heard) -> None:
        question = self._asked.get(tag)
        if question is not None:
            question.settle(heard)

    def _leave(self, code: int, reason: str) -> None:
        self._queue(CloseConnection(code=code, reason=reason))
        self._lose(PeerClosed(f"left {self._url}: {reason}"))

    def _lose(self, error: OrchestraError) -> None:
        """The connection is of no use any more: everything under way ends with ``error``."""
        if self._lost is not None:
            return
        self._lost = error
        for question in self._asked.values():
            question.settle(error)
        for mailbox in self._watched.values():
            mailbox.end(error)
        self._room.set()

    async def close(self) -> None:
        """Say goodbye, if there is still somebody to hear it. `write` must have ended."""
        with anyio.move_on_after(CLOSE_S, shield=True):
            if self._lost is None:
                self._queue(CloseConnection(code=NORMAL_CLOSURE))
                self._lose(PeerClosed("the connection is closed"))
            # After half a frame nothing that is sent makes sense.
            if self._unsent and not self._midway:
                with contextlib.suppress(*BROKEN):
                    await self._stream.send(bytes(self._unsent))


def open_websocket(
    place: Place, *, token: str, context: ssl.SSLContext, bulk: Bulk
) -> AbstractAsyncContextManager[WebsocketAsker]:
    """
    An `Asker` over a new websocket.

    Args:
        place: Where to.
        token: Sent with the handshake; empty for none.
        context: Decides whom to trust; not used without TLS.
        bulk: Opens a way for what is too long for one message.

    Raises:
        Unavailable: On entering: nobody answers there, or it is no orchestra.
        Rejected: On entering: the token was refused.
    """
    return _open(place, token, context, bulk)


@asynccontextmanager
async def _open(
    place: Place, token: str, context: ssl.SSLContext, bulk: Bulk
) -> AsyncGenerator[WebsocketAsker]:
    stream = await dial(place, context)
    # The caller's own error leaves as it is, not inside the group of the tasks here.
    raised: Exception | None = None
    try:
        protocol, early = await shake_hands(stream, place, token)
        asker = WebsocketAsker(stream, protocol, place.url, bulk)
        asker.begin(early)
        async with anyio.create_task_group() as group:
            for task in (asker.read, asker.write, asker.ping):
                group.start_soon(task)
            try:
                yield asker
            except Exception as error:  # noqa: BLE001  # raised again below, outside the group
                raised = error
            finally:
                group.cancel_scope.cancel()
        await asker.close()
    finally:
        with anyio.move_on_after(CLOSE_S, shield=True):
            await stream.aclose()
    if raised is not None:
        raise raised
