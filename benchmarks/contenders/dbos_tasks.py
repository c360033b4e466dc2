# pyright: reportMissingImports=false
# (DBOS is installed in the peer's own environment only)
"""
DBOS on SQLite, durable.

``queue``: submit to a queue that is polled every 10 ms, then wait for every result (tasks/s). ``direct``: call one durable
workflow after the other on an idle system (latency, and its rate).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
import time

from dbos import DBOS, DBOSConfig
from figures import percentile, tell


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("queue", "direct"), default="direct")
    parser.add_argument("--tasks", type=int, default=300)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-dbos-") as folder:
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": f"sqlite:///{folder}/dbos.sqlite",
            "log_level": "ERROR",
        }
        DBOS(config=config)

        @DBOS.workflow()
        def noop(i: int) -> int:
            return i

        DBOS.launch()
        queue = DBOS.register_queue("bench", polling_interval_sec=0.01)
        taken_us: list[float] = []
        for i in range(20):  # the first ones warm the caches
            noop(i)
        began = time.perf_counter()
        if chosen.mode == "queue":
            handles = [queue.enqueue(noop, i) for i in range(chosen.tasks)]
            results = [handle.get_result(polling_interval_sec=0.01) for handle in handles]
            if results != list(range(chosen.tasks)):
                raise SystemExit("DBOS returned other results")
        else:
            for i in range(chosen.tasks):
                before = time.perf_counter()
                if noop(i) != i:
                    raise SystemExit("DBOS returned another result")
                taken_us.append((time.perf_counter() - before) * 1e6)
        over = time.perf_counter()
        DBOS.destroy()
    figures: dict[str, float | str] = {
        "tasks_per_s": chosen.tasks / (over - began),
        "version": importlib.metadata.version("dbos"),
    }
    if taken_us:
        figures |= {"p50_us": percentile(taken_us, 50), "p99_us": percentile(taken_us, 99)}
    tell(figures)


if __name__ == "__main__":
    main()
