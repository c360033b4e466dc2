# pyright: reportMissingImports=false
# (huey is installed in the peer's own environment only)
"""
huey on SQLite, durable (``fsync=True``): submit, run, keep the result.

``overlap``: 256 threads submit while the consumer runs. ``drain``: everything is submitted first, then the consumer starts.
The submitters do not wait for results, which is easier than what our side does. One consumer thread is its best here: more
of them fight for the exclusive lock.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import tempfile
import threading
import time

from figures import tell
from huey import SqliteHuey


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=("overlap", "drain"), default="overlap")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--submitters", type=int, default=256)
    parser.add_argument("--workers", type=int, default=1)
    logging.getLogger("huey").setLevel(logging.ERROR)
    return parser.parse_args()


def main() -> None:
    chosen = options()
    with tempfile.TemporaryDirectory(prefix="bench-huey-") as folder:
        queue = SqliteHuey(filename=f"{folder}/huey.db", fsync=True, timeout=120)
        ended = 0
        all_ended = threading.Event()
        counting = threading.Lock()

        @queue.task()
        def noop(i: int) -> int:
            return i

        @queue.post_execute()
        def count(_task: object, _value: object, _error: object) -> None:
            nonlocal ended
            with counting:
                ended += 1
                if ended == chosen.tasks:
                    all_ended.set()

        def submit(first: int) -> None:
            for i in range(first, chosen.tasks, chosen.submitters):
                noop(i)

        consumer = queue.create_consumer(
            workers=chosen.workers,
            periodic=False,
            initial_delay=0.001,
            backoff=1.0,
            max_delay=0.001,
            check_worker_health=False,
        )
        threads = [
            threading.Thread(target=submit, args=(first,)) for first in range(chosen.submitters)
        ]
        began = time.perf_counter()
        if chosen.mode == "overlap":
            consumer.start()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        submitted = time.perf_counter()
        if chosen.mode == "drain":
            consumer.start()
        if not all_ended.wait(timeout=600):
            raise SystemExit(f"huey ended only {ended} of {chosen.tasks} tasks")
        # post_execute runs after the result has been stored.
        over = time.perf_counter()
        consumer.stop(graceful=True)
        stored = queue.result_count()
    if stored != chosen.tasks:
        raise SystemExit(f"huey kept {stored} results of {chosen.tasks} tasks")
    tell(
        {
            "tasks_per_s": chosen.tasks / (over - began),
            "submits_per_s": chosen.tasks / (submitted - began),
            "version": importlib.metadata.version("huey"),
        }
    )


if __name__ == "__main__":
    main()
