"""The real clock and the real source of randomness."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable


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
    """Seeds from the operating system."""

    def seed(self) -> int:
        return secrets.randbits(128)
