"""What running work can ask and tell: its identity, its progress, and whether it is asked to stop."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

from orchestra.statemachine.limits import LOG_BYTES_MAX

if TYPE_CHECKING:
    import anyio

T = TypeVar("T")

UNSENT_BYTES_MAX = 1024 * 1024
"""A function in a thread waits while so much of its log is not taken over yet."""

_YIELD_S = 0.01
"""``async for`` over a plain iterable lets others run about this often."""

_LOOK_S = 0.02
"""How often a waiting thread looks whether its log has been taken over."""


class Stopped(BaseException):
    """
    Raised inside work that is asked to stop, at its next step of `Context.track`, `Context.sleep` or `Context.wait`.

    As with a cancellation, ``except Exception`` lets it pass: clean up with ``finally``.
    """


class Context(Protocol):
    """
    Given to a function whose parameter is annotated with this type, or whose first one is called ``ctx``.

    A plain object with these members does for a test of the function.
    """

    @property
    def task_id(self) -> str:
        """The task's id: the same for every try."""
        ...

    @property
    def attempt(self) -> int:
        """The number of this try, counted from 1."""
        ...

    @property
    def item(self) -> Any:
        """The fan-out item, as JSON made it; None without one."""
        ...

    @property
    def stopping(self) -> bool:
        """The work is asked to stop."""
        ...

    @property
    def folder(self) -> Path:
        """A directory for this attempt alone, made when it is first asked for and removed after the end."""
        ...

    def track(
        self, iterable: Iterable[T] | AsyncIterable[T], total: int | None = None, message: str = ""
    ) -> Track[T]:
        """
        Iterate, with ``for`` or ``async for``, and tell how far it is. Raises `Stopped` between two items when asked to stop.

        Args:
            total: How many items there will be, when the iterable has no length.
            message: What to show beside the fraction.
        """
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others run for a while, in coroutines. Raises `Stopped` as soon as the work is asked to stop."""
        ...

    def wait(self, seconds: float) -> None:
        """As `sleep`, for functions in threads and processes: blocks."""
        ...

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far it is, from 0 to 1. Costs next to nothing: only the latest is sent, a few times a second."""
        ...

    def log(self, text: str) -> None:
        """Add a line to the attempt's output. Beyond 16 MiB lines are dropped, and the log says so."""
        ...


class Track(Generic[T]):
    """An iteration that tells how far it is; made by `Context.track`."""

    __slots__ = ("_context", "_message", "_source", "_total")

    def __init__(
        self,
        context: Context,
        source: Iterable[T] | AsyncIterable[T],
        total: int | None,
        message: str,
    ) -> None:
        self._context = context
        self._source = source
        self._total = len(source) if total is None and isinstance(source, Sized) else total
        self._message = message

    def __iter__(self) -> Iterator[T]:
        if not isinstance(self._source, Iterable):
            raise TypeError("this is iterated with async for")
        context = self._context
        for done, thing in enumerate(self._source):
            self._step(context, done)
            yield thing
        self._finish(context)

    async def __aiter__(self) -> AsyncIterator[T]:
        if isinstance(self._source, AsyncIterable):
            done = 0
            async for thing in self._source:
                self._step(self._context, done)
                done += 1
                yield thing
            self._finish(self._context)
            return
        from anyio.lowlevel import checkpoint

        yielded_at = time.monotonic()
        for thing in self:
            yield thing
            if time.monotonic() - yielded_at > _YIELD_S:
                await checkpoint()
                yielded_at = time.monotonic()

    def _step(self, context: Context, done: int) -> None:
        if context.stopping:
            raise Stopped
        if self._total:
            context.progress(done / self._total, self._message)
        elif done:
            context.progress(0.0, self._message or f"{done} done")

    def _finish(self, context: Context) -> None:
        if self._total:
            context.progress(1.0, self._message)


class Teller:
    """
    What all contexts share: it keeps what is told until the engine takes it.

    ``told`` and ``take`` are read by the engine, in another thread perhaps: each is one step of the interpreter.
    """

    def __init__(self, task_id: str, attempt: int, item: Any) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self.item = item
        self.stopping = False
        self.told: tuple[float, str] | None = None
        self._lines: deque[bytes] = deque()
        self._logged_bytes = 0
        self._taken_bytes = 0
        self._folder: Path | None = None

    @property
    def folder(self) -> Path:
        """As `Context.folder`."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="orchestra-"))
        return self._folder

    @property
    def has_folder(self) -> bool:
        """It was asked for."""
        return self._folder is not None

    def remove_folder(self) -> None:
        """Remove it, if it was made. Blocks."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def track(
        self, iterable: Iterable[T] | AsyncIterable[T], total: int | None = None, message: str = ""
    ) -> Track[T]:
        """As `Context.track`."""
        return Track(cast("Context", self), iterable, total, message)

    def progress(self, fraction: float, message: str = "") -> None:
        """As `Context.progress`."""
        self.told = (min(1.0, max(0.0, fraction)), message)

    def log(self, text: str) -> None:
        """As `Context.log`."""
        if self._logged_bytes >= LOG_BYTES_MAX:
            return
        line = (text if text.endswith("\n") else text + "\n").encode(errors="replace")
        self._logged_bytes += len(line)
        if self._logged_bytes >= LOG_BYTES_MAX:
            line = b"(the log is full: what follows is dropped)\n"
        self._lines.append(line)

    def take(self) -> bytes:
        """What was logged since the last time."""
        if not self._lines:
            return b""
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        data = b"".join(lines)
        self._taken_bytes += len(data)
        return data

    @property
    def unsent_bytes(self) -> int:
        """How much of the log waits to be taken."""
        return self._logged_bytes - self._taken_bytes


class LoopContext(Teller):
    """The context of a coroutine: everything happens in the event loop."""

    def __init__(self, task_id: str, attempt: int, item: Any) -> None:
        super().__init__(task_id, attempt, item)
        self._asked: anyio.Event | None = None

    def ask_to_stop(self) -> None:
        """From now on `stopping` is true and sleepers wake."""
        self.stopping = True
        if self._asked is not None:
            self._asked.set()

    async def sleep(self, seconds: float) -> None:
        """As `Context.sleep`."""
        import anyio

        if self._asked is None:
            self._asked = anyio.Event()
        if not self.stopping:
            with anyio.move_on_after(seconds):
                await self._asked.wait()
        if self.stopping:
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Refused: it would hold up everything else."""
        raise RuntimeError(f"in a coroutine write: await ctx.sleep({seconds:g})")


class ThreadContext(Teller):
    """The context of a function in a thread of its own."""

    def __init__(self, task_id: str, attempt: int, item: Any) -> None:
        super().__init__(task_id, attempt, item)
        self._asked = threading.Event()

    def ask_to_stop(self) -> None:
        """From now on `stopping` is true and sleepers wake."""
        self.stopping = True
        self._asked.set()

    async def sleep(self, seconds: float) -> None:
        """As `Context.sleep`, in an event loop that belongs to the function (in a process of its own)."""
        import anyio

        # The stop comes from another thread, which can not wake this loop, so it is looked for.
        with anyio.move_on_after(seconds):
            while not self.stopping:  # noqa: ASYNC110 - an anyio.Event belongs to one thread
                await anyio.sleep(_LOOK_S)
        if self.stopping:
            raise Stopped

    def wait(self, seconds: float) -> None:
        """As `Context.wait`."""
        if self._asked.wait(seconds):
            raise Stopped

    def log(self, text: str) -> None:
        """As `Context.log`; waits while too much is unsent."""
        super().log(text)
        while self.unsent_bytes > UNSENT_BYTES_MAX and not self._asked.wait(_LOOK_S):
            pass
