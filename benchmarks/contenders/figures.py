"""What every contender prints: one JSON line of plain numbers. Standard library only: it runs in the peers' environments."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping, Sequence


def percentile(samples: Sequence[float], per_cent: float) -> float:
    """The nearest-rank percentile of samples in any order."""
    ranked = sorted(samples)
    rank = max(0, min(len(ranked) - 1, round(per_cent / 100 * len(ranked)) - 1))
    return ranked[rank]


def memory_peak_bytes() -> int:
    """The most memory this process has held (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tell(figures: Mapping[str, float | int | str]) -> None:
    """Print the one line that `run.py` reads: the last line of stdout."""
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
