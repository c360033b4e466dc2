"""A port for a server that is killed and started again."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 10_000, 32_000
"""Below those that a system gives to whoever asks for any: while the server is down nobody comes by its port."""

TRIES_MAX = 100


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses. Raises OSError when there seems to be none."""
    for _ in range(TRIES_MAX):
        port = random.SystemRandom().randint(FIRST, LAST)  # other processes look for theirs too
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"none of {TRIES_MAX} ports from {FIRST} to {LAST} is free")
