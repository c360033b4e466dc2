"""The program inside a process of `orchestra.engines.pool`: calls one function after another, and tells how they end."""

from __future__ import annotations

import importlib
import inspect
import queue
import runpy
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import msgspec

from orchestra.engines.arguments import Plan, arguments, encoded, failure, plan, read_item
from orchestra.engines.context import Stopped, ThreadContext
from orchestra.engines.frames import Unpacker, packed
from orchestra.errors import Malformed

FLUSH_S = 0.1
"""How often progress and log lines are sent."""

MAIN = "__mp_main__"
"""What the main program's file is called here, so that ``if __name__ == "__main__"`` does not start it a second time."""


class Server:
    """Takes calls from a socket. A thread of its own listens, so that a stop reaches a function that computes."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._calls: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._context: ThreadContext | None = None
        self._sending = threading.Lock()
        self._plans: dict[tuple[str, str, str], tuple[Callable[..., Any], Plan]] = {}

    def run(self) -> None:
        """Serve until the other end closes."""
        threading.Thread(target=self._listen, daemon=True).start()
        while (words := self._calls.get()) is not None:
            context = self._context = ThreadContext(words["task_id"], words["attempt"], None)
            over = threading.Event()
            teller = threading.Thread(target=self._tell, args=(context, over), daemon=True)
            teller.start()
            answer = self._answer(words, context)
            over.set()
            teller.join()
            self._flush(context)
            context.remove_folder()
            self._context = None
            self._say(*answer)

    def _listen(self) -> None:
        unpacker = Unpacker()
        while data := self._line.recv(262_144):
            for payload in unpacker.feed(data):
                words: list[Any] = msgspec.msgpack.decode(payload)
                if words[0] == "call":
                    self._calls.put(words[1])
                elif self._context is not None:
                    self._context.ask_to_stop()
        self._calls.put(None)

    def _answer(self, words: dict[str, Any], context: ThreadContext) -> tuple[object, ...]:
        try:
            fn, known = self._found(**words["place"])
            context.item = read_item(words["item"])
            args, kwargs = arguments(known, words["template"], words["item"], words["param"])
        except (Malformed, ImportError, AttributeError, OSError) as problem:
            return "failed", str(problem)
        known.placed(args, kwargs, context)
        self._say("running")
        try:
            value = fn(*args, **kwargs)
            if inspect.iscoroutine(value):
                import anyio

                value = anyio.run(_awaited, value)
            return "completed", encoded(value)
        except Stopped:
            return ("stopped",)
        except Malformed as problem:
            return "failed", str(problem)
        except BaseException as problem:  # noqa: BLE001 - whatever it is, it is the function's own: a cancellation too
            return "failed", failure(problem)

    def _found(self, module: str, path: str, name: str) -> tuple[Callable[..., Any], Plan]:
        if (module, path, name) not in self._plans:
            found: Any = _main(path) if path else importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
            # A task object stands where the function was written, and holds it.
            fn = cast("Callable[..., Any]", getattr(found, "fn", found))
            self._plans[module, path, name] = fn, plan(fn)
        return self._plans[module, path, name]

    def _tell(self, context: ThreadContext, over: threading.Event) -> None:
        while not over.wait(FLUSH_S):
            self._flush(context)

    def _flush(self, context: ThreadContext) -> None:
        told, context.told = context.told, None
        if told is not None:
            self._say("progress", *told)
        if data := context.take():
            self._say("log", data)

    def _say(self, *words: object) -> None:
        with self._sending:
            self._line.sendall(packed(msgspec.msgpack.encode(words)))


async def _awaited(value: Any) -> Any:
    return await value


def _main(path: str) -> Any:
    """The main program's file as a module, read once."""
    if MAIN not in sys.modules:
        module = type(sys)(MAIN)
        sys.modules[MAIN] = module
        module.__dict__.update(runpy.run_path(path, run_name=MAIN))
    return sys.modules[MAIN]


def serve(fd: int) -> None:
    """Serve on the socket ``fd``, which programs that a function starts do not inherit."""
    line = socket.socket(fileno=fd)
    line.set_inheritable(False)
    Server(line).run()
