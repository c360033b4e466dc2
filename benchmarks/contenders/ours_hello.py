"""The smallest whole program on orchestra: a file, one task in ten calls, workers in the process, the results."""

from __future__ import annotations

import tempfile

import anyio
from figures import tell

import orchestra


async def hello_world(path: str) -> list[str]:
    app = orchestra.App(path)

    @app.task(retries=3, timeout="10m")
    async def hello(i: int) -> str:
        return f"hello {i}"

    async with app.run(workers=2) as client:
        job = await client.submit(hello.map(range(10)), name="hello", key="hello")
        return await job.results()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bench-ours-") as folder:
        told = anyio.run(hello_world, f"{folder}/farm.db")
    if told != [f"hello {i}" for i in range(10)]:
        raise SystemExit("other results came back")
    tell({})


if __name__ == "__main__":
    main()
