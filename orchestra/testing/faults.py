"""The faults that a simulation may meet, by name, to be combined with ``|``."""

from __future__ import annotations

NONE: frozenset[str] = frozenset()

CRASHES = frozenset({"kill", "vanish", "crash_at_commit", "crash_at_operation", "gone"})
"""
A process is killed; a worker's machine loses its power, and nobody tells its peers; the server is killed around its n-th commit; it
loses its power at the n-th write, flush or change of a name; a worker's machine never comes back, unless it is the last one.
"""

PAUSES = frozenset({"freeze"})
"""A process does nothing for a while and does not know it, as with SIGSTOP or a suspended machine."""

NET = frozenset({"cut", "reset", "slow"})
"""Nothing gets through in one direction; every connection of a place breaks; bytes take seconds."""

DISK = frozenset({"fail_commit", "full_disk", "fail_operation"})
"""A commit fails, stored or not; there is no space for a while; the n-th read, write, flush or change of a name fails, once or longer."""

CLOCK = frozenset({"step_clock", "skew_clock"})
"""
The wall clock of the server's machine is set, by up to an hour in either direction; the clock of a worker's machine goes at half to double
its speed.
"""

LEAVING = frozenset({"drain"})
"""A worker says goodbye in good order, and comes back."""

ALL = CRASHES | PAUSES | NET | DISK | CLOCK | LEAVING

ROT = frozenset({"flip_bit"})
"""
With the real store: a bit of a stored row flips. Not one of `ALL`: the job of that row may be set aside, and never end, which a test has to
expect.
"""
