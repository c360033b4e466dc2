"""A server that may open few files, and is sent more connections than that: it goes on answering, on the loop that has no trick for it."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from contextlib import ExitStack, closing

import pytest

if sys.platform == "win32":
    pytest.skip("there is no such limit", allow_module_level=True)

FILES = 64
CONNECTIONS = 100
ANSWER_S = 60.0

SERVER = """
import logging, resource, sys
from unittest import mock

import anyio

from orchestra import compose
from orchestra.config import Address, Config
from orchestra.transports import admission, serve

at_once, spare = map(int, sys.argv[1:])
failed = 0

def emit(record):
    global failed
    failed += "out of system resource" in record.getMessage()
    return False

logging.getLogger("asyncio").addFilter(emit)

def ready(address):
    # What is needed to answer is loaded by now.
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print(address.port, flush=True)

async def main():
    config = Config(listen=Address("127.0.0.1", 0))
    await compose.serve(config, tasks={}, slots=0, ready=ready, signals=True)

with mock.patch.object(serve, "ACCEPTED_AT_ONCE", at_once), mock.patch.object(admission, "SPARE_DESCRIPTORS", spare):
    anyio.run(main)
print(failed)
""".replace("FILES", str(FILES))


def crowded(at_once: int, spare: int) -> tuple[int, int]:
    """
    How many silent connections had to make room, and how often the loop failed to accept.

    Who was there before is answered all the time, and so is who comes later and asks.
    """
    words = [sys.executable, "-c", SERVER, str(at_once), str(spare)]
    with ExitStack() as stack:
        server = stack.enter_context(
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        )
        stack.callback(server.kill)
        assert server.stdout is not None
        port = int(server.stdout.readline())
        kept = stack.enter_context(connected(port))
        ask(kept)
        crowd = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), ANSWER_S))
            for _ in range(CONNECTIONS)
        ]
        for _ in range(5):
            ask(kept)
            ask(stack.enter_context(connected(port)))
        gone = 0
        for each in crowd:
            each.setblocking(False)
            gone += is_gone(each)
            each.close()
        ask(kept)
        ask(stack.enter_context(connected(port)))
        server.terminate()
        return gone, int(server.communicate(timeout=ANSWER_S)[0])


def is_gone(connection: socket.socket) -> bool:
    """Whether the server has ended it."""
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def connected(port: int) -> closing[http.client.HTTPConnection]:
    """A connection that is closed in the end."""
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S))


def ask(connection: http.client.HTTPConnection) -> None:
    """Ask something, and be answered."""
    connection.request("GET", "/api/v1/workers")
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read()


def test_who_only_connects_makes_room_and_who_asks_is_answered() -> None:
    gone, failed = crowded(at_once=2, spare=32)
    assert gone >= CONNECTIONS - FILES
    assert not failed


def test_a_loop_that_accepts_all_at_once_fails_as_often() -> None:
    _, failed = crowded(at_once=500, spare=0)
    assert failed >= 400
