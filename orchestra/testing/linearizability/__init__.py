"""
Linearizability of jobs and tasks: what many clients were told over real HTTP, by a real server that is killed meanwhile, has an order.

Each history is that of one job of one task, which clients submit with one key, pause, resume, cancel, try again and look at, while a worker
reports its attempts. A killed server leaves questions without answers; such a one may have been done, at any later moment, or never. The
promise: there is an order of all that was done which explains every answer, and in which each operation lies between its question and its
answer. Linearizability is local: objects are checked one by one.

Sources: Herlihy and Wing, "Linearizability: a correctness condition for concurrent objects" (1990); the robustness tests of etcd.
"""

from orchestra.testing.linearizability.checker import Undecided, Verdict, check
from orchestra.testing.linearizability.clients import Load, record
from orchestra.testing.linearizability.history import History, Operation
from orchestra.testing.linearizability.job_model import ABSENT, JobState, job_model
from orchestra.testing.linearizability.served import Server

__all__ = [
    "ABSENT",
    "History",
    "JobState",
    "Load",
    "Operation",
    "Server",
    "Undecided",
    "Verdict",
    "check",
    "job_model",
    "record",
]
