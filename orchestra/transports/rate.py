"""Token buckets: how often one caller may ask. Pure: the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

KEYS_MAX = 10_000
"""Callers that are remembered: about 2 MiB. The one heard of longest ago is forgotten first."""


class Buckets:
    """
    One bucket a caller: it holds up to ``burst`` tokens and gains ``per_s`` of them a second.

    Args:
        per_s: Lasting rate.
        burst: What may come at once after a rest.
        keys_max: Callers remembered at once.
    """

    def __init__(self, per_s: float, burst: float, *, keys_max: int = KEYS_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._keys_max = keys_max
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now_s: float) -> float:
        """
        Take one token. 0.0 when there was one, else the seconds until there is; then nothing was taken.

        ``now_s`` is any clock that never goes back.
        """
        level, since_s = self._levels.get(key, (self._burst, now_s))
        level = min(self._burst, level + max(0.0, now_s - since_s) * self._per_s)
        wait_s = 0.0 if level >= 1 else (1 - level) / self._per_s
        self._levels[key] = (level if wait_s else level - 1, now_s)
        self._levels.move_to_end(key)
        if len(self._levels) > self._keys_max:
            self._levels.popitem(last=False)
        return wait_s

    def __len__(self) -> int:
        return len(self._levels)
