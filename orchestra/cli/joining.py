"""``worker``: a process that runs tasks for a server."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import attrs
from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.apps import tasks_of
from orchestra.cli.fields import amounts
from orchestra.cli.reach import SERVER, USUAL, Reach
from orchestra.config.values import SLOTS_MAX
from orchestra.dialects import units
from orchestra.errors import Malformed
from orchestra.statemachine.records import Amounts
from orchestra.statemachine.values import value

if TYPE_CHECKING:
    from orchestra.calls import TaskFunction


@value
class Offer:
    """What a worker would offer, as ``--explain`` shows it. ``capacity`` is in the resource's own unit (bytes for memory)."""

    name: str
    slots: int
    labels: tuple[str, ...]
    apps: tuple[str, ...]
    capacity: dict[str, float]
    host: dict[str, str]


@value
class Introduction:
    """How a worker introduces itself."""

    name: str
    slots: int
    labels: tuple[str, ...]
    capacity: Amounts


def worker(
    url: Annotated[
        str | None,
        Parameter(help=f"Address of the server. [default: {SERVER}, or ORCHESTRA_SERVER]"),
    ] = None,
    /,
    *,
    slots: Annotated[
        int | None, Parameter(help="Tasks at a time; as many as there are cpus.")
    ] = None,
    name: Annotated[
        str | None,
        Parameter(
            help="Its name; a new process under it replaces the former. [default: host and process]"
        ),
    ] = None,
    label: Annotated[tuple[str, ...], Parameter(help="What tasks may ask for.")] = (),
    capacity: Annotated[
        tuple[str, ...],
        Parameter(help="Counted resources beside what is detected: scope=1, memory=8GiB."),
    ] = (),
    app: Annotated[
        tuple[str, ...], Parameter(help="MODULE:APP: run the tasks of an orchestra.App too.")
    ] = (),
    folder: Annotated[
        str | None,
        Parameter(help="Where tasks get their working directories. [default: a temporary folder]"),
    ] = None,
    explain: Annotated[bool, Parameter(help="Only tell what it would offer.")] = False,
    json: Annotated[bool, Parameter(help="With --explain: as JSON.")] = False,
    verbose: Annotated[bool, Parameter(name=["--verbose", "-v"], help="Log every detail.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    Run tasks for a server, as one of its workers.

    SIGTERM or Ctrl-C give what runs 15 s to finish, hand the rest back and leave; a second one ends it at once. It stays through restarts \
of the server.
    """
    from orchestra.cli.records import log_to_stderr
    from orchestra.worker import detect

    tasks = tasks_of(app)
    machine = detect.machine()
    slots = max(1, machine.cpus // 1_000) if slots is None else slots
    check_slots(slots)
    offered = dict(machine.capacity()) | dict(amounts(capacity, "--capacity"))
    name = name or f"{machine.host.get('hostname', 'worker')}-{os.getpid()}"
    if explain:
        shown = {k: v / 1_000 for k, v in sorted(offered.items())}
        apps = (*tasks, "process")
        _explain(Offer(name, slots, label, apps, shown, machine.host), offered, json=json)
        return exits.OK
    log_to_stderr("debug" if verbose else "info")
    where = reach if url is None else attrs.evolve(reach, server=url)
    with ExitStack() as stack:
        if folder is None:
            import tempfile

            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="orchestra-", ignore_cleanup_errors=True)
            )
        _work(
            where,
            tasks,
            folder,
            Introduction(name, slots, label, tuple(sorted(offered.items()))),
        )
    speech.say("left")
    return exits.OK


def _work(
    reach: Reach,
    tasks: dict[str, TaskFunction[Any, Any, Any]],
    folder: str,
    who: Introduction,
) -> None:
    from orchestra.compose import engines_for
    from orchestra.transports.connect import connect
    from orchestra.worker.agent import Agent
    from orchestra.worker.signals import run_until_signalled

    token = reach.token("worker")
    connect(
        reach.server, token=token, tls_ca=reach.tls_ca
    )  # a wrong address is told before the start
    agent = Agent(
        lambda: connect(reach.server, token=token, tls_ca=reach.tls_ca),
        engines_for(tasks, folder),
        name=who.name,
        slots=who.slots,
        labels=who.labels,
        capacity=who.capacity,
    )
    slots = f"{who.slots} {'slot' if who.slots == 1 else 'slots'}"
    speech.say(speech.clean(f"worker {who.name}  {slots}  {reach.server}"))
    anyio.run(run_until_signalled, agent)


def check_slots(slots: int) -> None:
    """Raises `Malformed` unless it is a number of slots."""
    if not 1 <= slots <= SLOTS_MAX:
        raise Malformed(f"must be from 1 to {SLOTS_MAX}, not {slots}", where="--slots")


def _explain(offer: Offer, offered: dict[str, int], *, json: bool) -> None:
    if json:
        speech.put_plain_json(offer)
        return
    rows = [
        ("name", offer.name),
        ("slots", str(offer.slots)),
        ("labels", " ".join(offer.labels) or "none"),
        ("apps", " ".join(offer.apps)),
    ]
    for resource, count in sorted(offered.items()):
        sized = resource in units.SIZED_RESOURCES
        text = (
            units.bytes_text(count // 1_000, rounded=True)
            if sized
            else units.amount_text(resource, count)
        )
        rows.append((resource, text))
    rows += sorted(offer.host.items())
    speech.put_table(("OFFERS", ""), rows)
