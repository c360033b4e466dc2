"""
Schedules of the core: the real `step` and the real far end of a worker, over a simulated net, simulated crashes and simulated time.

`run` plays one, drawn from its seed, and raises the first invariant that it breaks; `campaign` plays many, and adds them up.
"""

from orchestra.testing.schedules.campaign import Broken, Tally, campaign, chunk
from orchestra.testing.schedules.knobs import FAULTS, Knobs, draw
from orchestra.testing.schedules.run import Played, Violated, play, run

__all__ = [
    "FAULTS",
    "Broken",
    "Knobs",
    "Played",
    "Tally",
    "Violated",
    "campaign",
    "chunk",
    "draw",
    "play",
    "run",
]
