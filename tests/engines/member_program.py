"""A member container's program on a real socket that does what a test says: right, wrong, late, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

Reply = tuple[int, str] | None
"""A status and a text; None closes the connection without a word."""

Ids = tuple[str, str]


class Program(ThreadingHTTPServer):
    """
    Behaves as TANGO's programs do, but for what the test replaces.

    ``words`` is what it says of ids; `start` makes them ``running`` unless ``start_to`` names another word.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Asked)
        self.words: dict[Ids, str] = {}
        self.start_to = "running"
        self.asked: list[str] = []
        self.seen: list[dict[str, str]] = []
        self.changed = threading.Condition()
        self.held = threading.Event()
        self.held.set()
        """Cleared, no call is answered until it is set again."""
        self.replaced: dict[str, Callable[[Ids], Reply]] = {}
        """By name of the call: what is answered instead."""

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def answer(self, verb: str, ids: Ids) -> Reply:
        with self.changed:
            self.asked.append(verb)
            self.changed.notify_all()
        self.held.wait()
        if verb in self.replaced:
            return self.replaced[verb](ids)
        if verb == "start":
            self.words[ids] = self.start_to
            return 200, '"started"'
        if verb == "stop":
            self.words[ids] = "stopped"
            return 200, '"finished"'
        if verb == "resume":
            self.words[ids] = "running"
            return 200, "resumed"
        if verb == "status_request":
            return 200, f'"{self.words.get(ids, "ready")}"'
        return 404, "?"

    def wait_for(self, verb: str, times: int = 1, bound_s: float = 30) -> None:
        """Return when it was asked so often."""
        until = time.monotonic() + bound_s
        with self.changed:
            while self.asked.count(verb) < times:
                assert self.changed.wait(max(0.0, until - time.monotonic())), (verb, self.asked)


class _Asked(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Program)
        asked = urlsplit(self.path)
        given = dict(parse_qsl(asked.query, keep_blank_values=True))
        self.server.seen.append(
            {**given, "path": self.path, **{k.lower(): v for k, v in self.headers.items()}}
        )
        ids = (given.get("user_id", ""), given.get("project_id", ""))
        reply = self.server.answer(asked.path.strip("/"), ids)
        if reply is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        # Who asked may have gone.
        with suppress(ConnectionError):
            self.send_response(reply[0])
            self.end_headers()
            self.wfile.write(reply[1].encode())
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def program(port: int = 0) -> Generator[Program]:
    with Program(port) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield served
        finally:
            served.held.set()
            served.shutdown()
            thread.join()
