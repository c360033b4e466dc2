"""What the checks of a store share: how to come by one, and how to say that it is broken."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs

from orchestra.ports import Store

MakeStore = Callable[[], Awaitable[Store]]
Reopen = Callable[[Store], Awaitable[Store]]


class StoreBroken(AssertionError):
    """A store does not keep the contract. The message begins with the law that it broke."""


@attrs.frozen(slots=True)
class Bench:
    """
    How to come by stores.

    Args:
        make: A new, empty store.
        reopen: A second store on what a store had made durable, as after a crash: the first is not closed before, and
            not used any more. None for a store that keeps nothing.
    """

    make: MakeStore
    reopen: Reopen | None = None


Check = Callable[[Bench], Awaitable[None]]


def expect(condition: object, law: str) -> None:
    """Raise `StoreBroken` unless ``condition`` holds."""
    if not condition:
        raise StoreBroken(law)


@asynccontextmanager
async def loaded_store(bench: Bench) -> AsyncGenerator[Store]:
    """A new store, loaded; closed at the end."""
    store = await bench.make()
    try:
        await store.load()
        yield store
    finally:
        await store.aclose()
