"""How each trouble of a plan is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from types import MappingProxyType

from orchestra.testing.simulation.cluster import SERVER, Cluster
from orchestra.testing.simulation.plan import Trouble

STEPS_S = (-3_600.0, -1_800.0, -30.0, -1.0, 1.0, 30.0, 1_800.0, 3_600.0)
"""How far a wall clock is set: what a time server mends, what a person does, and a summer."""

RATES = (0.5, 0.7, 0.9, 0.99, 1.01, 1.3, 1.6, 2.0)
"""How fast a clock goes: half to double, as on a machine that is virtual and starved, or badly made."""


def _kill(cluster: Cluster, trouble: Trouble) -> None:
    cluster.kill(trouble.place)
    cluster.later(trouble.lasts_ms / 1_000, lambda: cluster.start(trouble.place))


def _vanish(cluster: Cluster, trouble: Trouble) -> None:
    cluster.kill(trouble.place, silent=True)
    cluster.later(trouble.lasts_ms / 1_000, lambda: cluster.start(trouble.place))


def _crash_at_commit(cluster: Cluster, trouble: Trouble) -> None:
    """``number`` says after how many commits (halved), and whether it is stored before (odd)."""
    cluster.disk.crash_at_commit(trouble.number // 2, stored=bool(trouble.number % 2))


def _crash_at_operation(cluster: Cluster, trouble: Trouble) -> None:
    """Which one, and what survives, is drawn from all of the trouble."""
    cluster.disk.crash_at_operation(Random(str(trouble)))


def _freeze(cluster: Cluster, trouble: Trouble) -> None:
    cluster.freeze(trouble.place, trouble.lasts_ms / 1_000)


def _cut(cluster: Cluster, trouble: Trouble) -> None:
    """``number``: odd cuts what goes to the place, even what comes from it."""
    ends = (trouble.place, SERVER)
    source, target = ends[::-1] if trouble.number % 2 else ends
    cluster.truth.tell(
        trouble.place, f"is cut off {'from' if trouble.number % 2 else 'towards'} the server"
    )
    cluster.network.cut(source, target, trouble.lasts_ms / 1_000)


def _reset(cluster: Cluster, trouble: Trouble) -> None:
    cluster.truth.tell(trouble.place, "loses its connections")
    cluster.network.reset(trouble.place)


def _slow(cluster: Cluster, trouble: Trouble) -> None:
    cluster.truth.tell(trouble.place, "has a slow net")
    cluster.network.slow(trouble.place, 0.2 * (1 + trouble.number), trouble.lasts_ms / 1_000)


def _fail_commit(cluster: Cluster, trouble: Trouble) -> None:
    """``number``: odd is stored all the same; of 6 and 7 there are three in a row."""
    stored = bool(trouble.number % 2)
    cluster.truth.tell(SERVER, f"has a disk that fails ({'stored' if stored else 'not stored'})")
    cluster.disk.fail_commits(3 if trouble.number > 5 else 1, stored=stored)  # noqa: PLR2004 - as the docstring says


def _fail_operation(cluster: Cluster, trouble: Trouble) -> None:
    """Odd: until the trouble ends, even: once. Which one, and how, is drawn from all of the trouble."""
    forever = bool(trouble.number % 2)
    cluster.truth.tell(SERVER, f"has a disk that fails {'for a while' if forever else 'once'}")
    mended = cluster.disk.fail_operation(Random(str(trouble)), forever=forever)
    cluster.later(trouble.lasts_ms / 1_000, mended)


def _full_disk(cluster: Cluster, trouble: Trouble) -> None:
    cluster.truth.tell(SERVER, "has a full disk")
    cluster.later(trouble.lasts_ms / 1_000, cluster.disk.fill())


def _step_clock(cluster: Cluster, trouble: Trouble) -> None:
    """``number``: how far, as in `STEPS_S`."""
    cluster.wall_step_s = STEPS_S[trouble.number]
    cluster.truth.tell(SERVER, f"has its clock set by {cluster.wall_step_s:+g} s")


def _skew_clock(cluster: Cluster, trouble: Trouble) -> None:
    """``number``: how fast it goes, as in `RATES`."""
    cluster.skew(trouble.place, RATES[trouble.number])


def _gone(cluster: Cluster, trouble: Trouble) -> None:
    cluster.lose(trouble.place)


def _flip_bit(cluster: Cluster, trouble: Trouble) -> None:
    """The server is killed, a bit of a stored row flips, and it starts again. Which bit is drawn from all of the trouble."""
    cluster.kill(SERVER)
    cluster.disk.flip_bit(Random(str(trouble)))
    cluster.later(trouble.lasts_ms / 1_000, lambda: cluster.start(SERVER))


def _drain(cluster: Cluster, trouble: Trouble) -> None:
    cluster.drain(trouble.place)


TROUBLES: Mapping[str, Callable[[Cluster, Trouble], None]] = MappingProxyType(
    {
        "kill": _kill,
        "vanish": _vanish,
        "crash_at_commit": _crash_at_commit,
        "crash_at_operation": _crash_at_operation,
        "freeze": _freeze,
        "cut": _cut,
        "reset": _reset,
        "slow": _slow,
        "fail_commit": _fail_commit,
        "fail_operation": _fail_operation,
        "full_disk": _full_disk,
        "step_clock": _step_clock,
        "skew_clock": _skew_clock,
        "gone": _gone,
        "flip_bit": _flip_bit,
        "drain": _drain,
    }
)
"""Each by its name in `orchestra.testing.faults`."""
