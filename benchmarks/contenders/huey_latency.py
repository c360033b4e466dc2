# pyright: reportMissingImports=false
# (huey is installed in the peer's own environment only)
"""huey on SQLite, durable, idle: submit one task, see its result. Both of its polls are tuned to 1 ms."""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import tempfile
import time

from figures import percentile, tell
from huey import SqliteHuey


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", type=int, default=500)
    chosen = parser.parse_args()
    logging.getLogger("huey").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="bench-huey-") as folder:
        queue = SqliteHuey(filename=f"{folder}/huey.db", fsync=True, timeout=120)

        @queue.task()
        def noop(i: int) -> int:
            return i

        consumer = queue.create_consumer(
            workers=1,
            periodic=False,
            initial_delay=0.001,
            backoff=1.0,
            max_delay=0.001,
            check_worker_health=False,
        )
        consumer.start()
        taken_us: list[float] = []
        for i in range(chosen.tasks + 20):
            began = time.perf_counter()
            result = noop(i)
            if result.get(blocking=True, backoff=1.0, max_delay=0.001, timeout=60) != i:
                raise SystemExit("huey returned another task's result")
            if i >= 20:  # the first ones warm the caches
                taken_us.append((time.perf_counter() - began) * 1e6)
            time.sleep(0.002)  # idle in between
        consumer.stop(graceful=True)
    tell(
        {
            "p50_us": percentile(taken_us, 50),
            "p99_us": percentile(taken_us, 99),
            "version": importlib.metadata.version("huey"),
        }
    )


if __name__ == "__main__":
    main()
