"""
A worker of a Flamenco manager: it runs the programs that its operator allows, as jobs of a core of ours, for a manager of 2015.

It speaks the pull protocol (2015-03), where it asks, or the push protocol (2015-02), where it is called. Source: Flamenco's Manager API
document, and the wire of its programs.
"""

from __future__ import annotations

from orchestra.config import DialectPort
from orchestra.dialects.asks import Dialogue
from orchestra.dialects.flamenco_replies import refuse
from orchestra.dialects.flamenco_worker_options import read_options
from orchestra.dialects.flamenco_worker_pull import Pull
from orchestra.dialects.flamenco_worker_push import Push, push_routes
from orchestra.dialects.flamenco_worker_reports import Reports, Surroundings
from orchestra.dialects.flamenco_worker_runs import Runs
from orchestra.dialects.wire import Chore, Dialect

NAME = "flamenco-worker"
ROUND_MS = 1_000
"""As often as a worker of 2015-03 asks."""


def flamenco_worker(port: DialectPort, surroundings: Surroundings) -> Dialect:
    """
    The dialect with the options of `flamenco_worker_options.WorkerOptions`.

    Raises:
        Malformed: An option is unknown, missing, or of another kind.
    """
    options = read_options(port)
    runs = Runs(surroundings.now_ms, surroundings.labels)
    reports = Reports(options, surroundings, runs)
    push = Push(options, surroundings, runs, reports)
    begin = Pull(options, surroundings, runs, reports).round if options.pull else push.round
    # Who asks is not called: only how it is can be looked at.
    routes = push_routes(push) if not options.pull else push_routes(push)[:3]
    return Dialect(NAME, routes, refuse, chores=(Chore(lambda: Dialogue(begin), ROUND_MS),))
