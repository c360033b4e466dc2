# pyright: reportMissingImports=false
# (huey is installed in the peer's own environment only)
"""The smallest whole program on huey: a file, one task in ten calls, a consumer in the process, the results."""

from __future__ import annotations

import logging
import tempfile

from figures import tell
from huey import SqliteHuey


def main() -> None:
    logging.getLogger("huey").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="bench-huey-") as folder:
        queue = SqliteHuey(filename=f"{folder}/huey.db", fsync=True)

        @queue.task()
        def hello(i: int) -> str:
            return f"hello {i}"

        consumer = queue.create_consumer(
            workers=2, periodic=False, initial_delay=0.001, backoff=1.0, max_delay=0.001
        )
        consumer.start()
        results = [hello(i) for i in range(10)]
        told = [
            each.get(blocking=True, backoff=1.0, max_delay=0.001, timeout=30) for each in results
        ]
        consumer.stop(graceful=True)
    if told != [f"hello {i}" for i in range(10)]:
        raise SystemExit("huey returned other results")
    tell({})


if __name__ == "__main__":
    main()
