"""A program to be killed: commits batches to a store and says on stdout which are acknowledged."""

from __future__ import annotations

import sys

import anyio

from orchestra.storage.sqlite import SqliteStore
from orchestra.testing import store_samples as samples

WIDTH = 20


def acknowledge(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


async def main(path: str, when: str) -> None:
    store = await SqliteStore.open(path)
    loaded = await store.load()
    for number in range(loaded.number + 1, 1_000_000):
        first = 1 + (number - 1) * WIDTH
        records = [samples.job(first + place) for place in range(WIDTH)]
        if when == "early":  # breaks the law on purpose: replies before the batch is durable
            acknowledge(number)
        await store.commit(samples.numbered(number, first, *records))
        if when == "after":
            acknowledge(number)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:3], backend=sys.argv[3])
