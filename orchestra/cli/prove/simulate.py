"""``prove simulate``: the whole system in one process, under drawn faults."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.prove.concluding import Json, Ledger, Write, conclude
from orchestra.errors import Malformed
from orchestra.statemachine.values import value
from orchestra.testing.diagram import drawn
from orchestra.testing.proof_page import Evidence, commit_of
from orchestra.testing.seed_ledger import SeedLedger
from orchestra.testing.simulation.campaign import Tally, campaign, play_seed
from orchestra.testing.simulation.plan import Backend, Keeping
from orchestra.testing.simulation.simulation import Failed

SIMULATIONS_MAX = 1_000_000_000
PROCESSES_MAX = 1_024
HOUR_MS = 3_600_000
TOLD_EVERY = 1_000
"""A sign of life in a long campaign."""


@value
class _Chosen:
    """What is the same in all simulations of a campaign."""

    store: Keeping | None
    backend: Backend

    @property
    def name(self) -> str:
        """Of its section on a page: ``store`` is the one of all simulations, if it is not drawn."""
        kept = f"-{self.store}" if self.store else ""
        return f"simulate{kept}" + (f"-{self.backend}" if self.backend != "asyncio" else "")


def simulate(
    *,
    simulations: Annotated[int, Parameter(help="How many are played.")] = 200,
    seed: Annotated[int, Parameter(help="The seed of the first; the others count on.")] = 1,
    processes: Annotated[
        int | None, Parameter(help="How many at the same time. [default: one for each cpu]")
    ] = None,
    store: Annotated[
        Keeping | None,
        Parameter(
            help="Where servers keep everything: memory, or sqlite for the real store on a simulated drive. [default: drawn]"
        ),
    ] = None,
    backend: Annotated[
        Backend, Parameter(help="On whose event loops everything runs.")
    ] = "asyncio",
    diagram: Annotated[bool, Parameter(help="Show what happened, for one simulation.")] = False,
    ledger: Ledger = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Play the whole system on a simulated net, disk, clock and machines, under drawn faults.

    Server, workers, client and the bytes between them are the real ones. Processes are killed and frozen, machines lose their power, the
    net is cut one way, the disk fails and fills up, clocks are set. Then all heals, and everything that was accepted has to end, once.
    A long campaign that is cut off goes on with the same ledger.
    """
    for name, number, most in (
        ("--simulations", simulations, SIMULATIONS_MAX),
        ("--processes", processes if processes is not None else 1, PROCESSES_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    if diagram and simulations != 1:
        raise Malformed("a diagram is of one: add --simulations 1", where="--diagram")
    chosen = _Chosen(store, backend)
    if diagram:
        return _shown(seed, chosen)
    kept = SeedLedger(Tally(), chosen.name, ledger, commit_of(Path.cwd()))
    tallies = campaign(
        simulations,
        seed=seed,
        processes=processes or os.cpu_count() or 1,
        store=store,
        backend=backend,
        ledger=kept,
    )
    tally = played(tallies)
    if tally.broken and not json:
        broken = tally.broken[0]
        _shown(broken.seed, chosen)
        speech.put(f"{speech.clean(broken.why)}\nsee it again:")
        speech.put(f"{_called(broken.seed, 1, chosen)} --diagram")
    evidence = _evidence(tally, seed, chosen, kept.commits)
    return conclude(evidence, proved=not tally.broken, page=write, json=json)


def played(tallies: Generator[Tally]) -> Tally:
    """The last sum; Ctrl-C ends a long campaign early, with what was played until then."""
    reached, told = Tally(), TOLD_EVERY
    with closing(tallies):
        try:
            for reached in tallies:
                if reached.simulations >= told:
                    speech.say(
                        f"{reached.simulations:,} simulations, {reached.cpu_s:,.0f} s of CPU"
                    )
                    told += TOLD_EVERY
        except KeyboardInterrupt:
            if not reached.simulations:
                raise
            speech.say(f"ended early, after {reached.simulations:,} simulations")
    return reached


def _called(seed: int, simulations: int, chosen: _Chosen) -> str:
    words = f"python -m orchestra prove simulate --simulations {simulations} --seed {seed}"
    words += f" --store {chosen.store}" if chosen.store else ""
    return words + (f" --backend {chosen.backend}" if chosen.backend != "asyncio" else "")


def _shown(seed: int, chosen: _Chosen) -> int:
    try:
        plan, done = play_seed(seed, chosen.store, chosen.backend)
    except Failed as failed:
        speech.put(drawn(failed.lines))
        speech.put(f"{type(failed.cause).__name__}: {speech.clean(str(failed.cause))}")
        return exits.FAILED
    speech.put(drawn(done.lines))
    speech.put(f"plan: {plan}")
    return exits.OK


def _evidence(tally: Tally, seed: int, chosen: _Chosen, commits: str) -> Evidence:
    hours = tally.simulated_ms / HOUR_MS
    cpu_s = max(tally.cpu_s, 1e-9)
    figures = (
        ("simulations", f"{tally.simulations:,}, of which {tally.twice:,} were played twice"),
        ("troubles", f"{tally.troubles:,}"),
        ("commits", f"{tally.commits:,}"),
        ("callbacks of the event loop", f"{tally.callbacks:,}"),
        ("simulated time", f"{hours:,.0f} h"),
        ("rate of one processor", f"{tally.simulations / cpu_s:,.1f} simulations/s"),
        ("simulated hours per CPU hour", f"{hours * 3_600 / cpu_s:,.0f}"),
        ("commits, with how many simulations of each", commits),
        *_drive_figures(tally),
        ("violations", f"{len(tally.broken)}"),
    )
    broken = tally.broken[0] if tally.broken else None
    real, trio = chosen.store == "sqlite", chosen.backend == "trio"
    whole = "The whole system with its real store" if real else "The whole system"
    return Evidence(
        name=chosen.name,
        title=f"{whole}, simulated on trio" if trio else f"{whole}, simulated",
        command=_called(seed, tally.simulations, chosen),
        figures=figures,
        seeds=f"{seed} to {seed + tally.simulations - 1}",
        result=(
            "No simulation broke an invariant, and each that was played twice gave the same story and the same rows."
            if broken is None
            else f"Broken by seed {broken.seed}: {broken.why.splitlines()[0]}"
        ),
    )


def _drive_figures(tally: Tally) -> tuple[tuple[str, str], ...]:
    if not tally.operations:
        return ()
    return (
        ("writes, flushes and changes of names on simulated drives", f"{tally.operations:,}"),
        ("of them, or of reads, failed", f"{tally.failed:,}"),
        (
            "cuts of a server's power, each followed by a look at everything acknowledged",
            f"{tally.cuts:,}",
        ),
    )
