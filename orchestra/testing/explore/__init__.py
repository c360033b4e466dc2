r"""
Every state that the core can come to in a small world: breadth-first over the real step function and the real far end of a worker.

Where schedules draw at random, this leaves nothing out: within its bounds every order of messages, every loss, doubling, crash and silence,
every wish of people at every moment is tried, and every invariant looked at on every step. Machines that are alike are counted once. At
the end it is asked from where work can still come to an end when all goes well from then on: it must be from everywhere.

Sources: Lamport's TLA+ and Holzmann's spin for the method (breadth-first, a state once, the shortest way to what is wrong); Ip and Dill,
"Better verification through symmetry" (1996), for the renaming of machines that are alike.

    from orchestra.testing.explore import WORLDS, explore
    explored = explore(WORLDS["silent"])
    assert not explored.broken, "\\n".join(explored.path)
"""

from orchestra.testing.explore.bounds import Bounds, Violation
from orchestra.testing.explore.campaign import explore, explored_all, never_taken
from orchestra.testing.explore.search import Explored
from orchestra.testing.explore.worlds import LARGE, WORLDS

__all__ = [
    "LARGE",
    "WORLDS",
    "Bounds",
    "Explored",
    "Violation",
    "explore",
    "explored_all",
    "never_taken",
]
