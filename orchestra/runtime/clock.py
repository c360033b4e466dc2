"""The real clock and the real source of randomness."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

_SEED_BYTES = 16
_POOL_BYTES = 256 * _SEED_BYTES


class SteadyClock:
    """
    Wall time at the start, counted on by the monotonic clock: it never goes back, and a step of the wall clock moves no lease.

    Args:
        wall_s: Seconds since the epoch.
        monotonic_s: Seconds of a clock that only goes forward.
    """

    def __init__(
        self,
        wall_s: Callable[[], float] = time.time,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._offset_ms = int((wall_s() - monotonic_s()) * 1000)

    def now_ms(self) -> int:
        return self._offset_ms + int(self._monotonic_s() * 1000)

    def not_before(self, at_ms: int) -> None:
        """Go on from ``at_ms`` when the wall clock stood earlier at the start than what is stored already."""
        self._offset_ms += max(0, at_ms - self.now_ms())


class SystemSeeds:
    """Seeds from the operating system, fetched for a few hundred stimuli at a time: each call of it costs a microsecond."""

    def __init__(self) -> None:
        self._drawn: list[int] = []

    def seed(self) -> int:
        if not self._drawn:
            pool = secrets.token_bytes(_POOL_BYTES)
            self._drawn = [
                int.from_bytes(pool[start : start + _SEED_BYTES])
                for start in range(0, _POOL_BYTES, _SEED_BYTES)
            ]
        return self._drawn.pop()
