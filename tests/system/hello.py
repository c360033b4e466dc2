"""The smallest whole program: a file, workers in the process, the results of ten calls."""

from __future__ import annotations

import sys

import anyio

import orchestra

app = orchestra.App(sys.argv[1])


@app.task(retries=3, timeout="10m", needs={"cpu": 1})
async def render(ctx: orchestra.Context, frame: int) -> str:
    return f"frame {frame} at attempt {ctx.attempt}"


async def main() -> None:
    async with app.run(workers=2) as client:
        job = await client.submit(render.map(range(1, 11)), name="shot-42", key="shot-42")
        sys.stdout.write("\n".join(await job.results()))


if __name__ == "__main__":
    anyio.run(main)
