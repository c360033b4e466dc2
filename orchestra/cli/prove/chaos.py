"""``prove chaos``: real processes that are killed, frozen, cut off and starved, and what clients were told held against the store."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import anyio
from cyclopts import Parameter

from orchestra.cli import speech
from orchestra.cli.fields import duration_ms
from orchestra.cli.prove.concluding import Json, Write, conclude
from orchestra.errors import Malformed
from orchestra.testing.proof_page import Evidence, commit_of

if TYPE_CHECKING:
    from orchestra.testing.chaos.ledger import Entry
    from orchestra.testing.chaos.tally import Tally

ROUNDS_MAX = 1_000_000
TOGETHER_MAX = 64

LEASE_S = (0.6, 3_600.0)
"""A heartbeat is a third of it, and takes some tenths of a second on a busy machine."""


def chaos(
    *,
    only: Annotated[
        tuple[str, ...],
        Parameter(help="Kinds of trouble, with commas or one by one. [default: every one]"),
    ] = (),
    rounds: Annotated[
        int, Parameter(help="How many troubles of each kind; of the rarer kinds a fifth.")
    ] = 10,
    seed: Annotated[int, Parameter(help="The seed of the first farm; the others count on.")] = 1,
    lease: Annotated[
        str,
        Parameter(help="After so long a silent worker loses its work, where that is waited for."),
    ] = "6s",
    together: Annotated[int, Parameter(help="How many farms at the same time.")] = 1,
    ledger: Annotated[
        Path | None,
        Parameter(
            help="Keep there what came of each farm that ended well, and do not play again what is there."
        ),
    ] = None,
    write: Write = None,
    json: Json = False,
) -> int:
    """
    Kill, freeze, cut off and starve real servers and workers, and hold what clients were told against the store.

    Server, workers and clients are processes as users start them. Clients write down what they were told; in the end nothing of it may be
    lost, recorded twice or unfinished, no process may be left, and after each trouble work has to go on in time. Processes are real and
    so is their timing: a seed gives the same troubles again, not the same moments. A long campaign that is cut off goes on with the same
    ledger.
    """
    from orchestra.testing.chaos import campaign
    from orchestra.testing.chaos.farm import Plan
    from orchestra.testing.chaos.ledger import Ledger

    kinds = _kinds(only, tuple(campaign.KINDS))
    lease_s = duration_ms(lease, "--lease") / 1_000
    _check(rounds, together, lease_s)
    kinds = _with_clocks(kinds, only)
    wanted = campaign.episodes(kinds, rounds, seed)
    plan = Plan(lease_ms=round(lease_s * 1_000))
    kept, commit = Ledger(ledger), commit_of(Path.cwd())

    async def go() -> list[Entry]:
        return await campaign.play_all(
            wanted, plan, together, told=_said, ledger=kept, commit=commit
        )

    entries = anyio.run(go)
    command = _command(only, rounds, seed, lease, together)
    seeds = f"{seed} to {max(episode.seed for episode in wanted)}"
    return _concluded(entries, command, seeds, write, json=json)


def _concluded(
    entries: Sequence[Entry], command: str, seeds: str, page: str | None, *, json: bool
) -> int:
    from orchestra.testing.chaos import campaign
    from orchestra.testing.chaos.ledger import played_on

    tallies = campaign.by_kind(entries)
    broken = [f"{kind}: {each}" for kind, tally in tallies.items() for each in tally.broken]
    broken += campaign.unjudged(tallies)
    commits = ("commits, with how many farms of each", played_on(entries))
    evidence = Evidence(
        name="chaos",
        title="Real processes",
        command=command,
        figures=(*_totals(tallies, entries), commits, *_rows(tallies)),
        seeds=seeds,
        result=broken[0] if broken else _RESULT,
    )
    return conclude(evidence, proved=not broken, page=page, json=json)


_RESULT = (
    "Nothing that a client was told was lost, no task was recorded twice or left unfinished, no process was left behind, and work went"
    " on in time after every trouble."
)


def _kinds(only: Sequence[str], known: tuple[str, ...]) -> tuple[str, ...]:
    named = [name.strip() for each in only for name in each.split(",")]
    for name in named:
        if name not in known:
            raise Malformed(f"must be one of {', '.join(known)}, not {name!r}", where="--only")
    return tuple(dict.fromkeys(named)) or known


def _with_clocks(kinds: tuple[str, ...], only: Sequence[str]) -> tuple[str, ...]:
    """The kinds that can be played here. Raises `Malformed` when one was asked for by name that can not."""
    from orchestra.testing.chaos import campaign, scarcity

    faked = [kind for kind in kinds if campaign.KINDS[kind].fake_clock]
    if not faked or scarcity.fake_clock() is not None:
        return kinds
    if only:
        remedy, where = "apt-get install faketime", f"--only {faked[0]}"
        raise Malformed("no library to set clocks with", where=where, remedy=remedy)
    speech.warn("clocks are left out: install Debian's package faketime")
    return tuple(kind for kind in kinds if kind not in faked)


def _check(rounds: int, together: int, lease_s: float) -> None:
    for name, number, most in (
        ("--rounds", rounds, ROUNDS_MAX),
        ("--together", together, TOGETHER_MAX),
    ):
        if not 1 <= number <= most:
            raise Malformed(f"must be from 1 to {most}, not {number}", where=name)
    least, longest = LEASE_S
    if not least <= lease_s <= longest:
        raise Malformed(
            f"must be from {least:g} to {longest:g} s, not {lease_s:g}", where="--lease"
        )


def _command(only: Sequence[str], rounds: int, seed: int, lease: str, together: int) -> str:
    chosen = f" --only {','.join(only)}" if only else ""
    return (
        f"python -m orchestra prove chaos{chosen} --rounds {rounds} --seed {seed} --lease {lease}"
        f" --together {together}"
    )


def _said(entry: Entry) -> None:
    speech.say(f"{entry.kind}, seed {entry.seed}: {entry.tally.struck} troubles")
    for each in entry.tally.broken:
        speech.warn(each)


def _totals(tallies: Mapping[str, Tally], entries: Sequence[Entry]) -> Iterator[tuple[str, str]]:
    from orchestra.testing.chaos.tally import Tally

    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    yield "troubles", f"{total.struck:,} of {len(tallies)} kinds, on {len(entries):,} farms"
    minutes = sum(entry.took_s for entry in entries) / 60
    yield "time of all farms, one after the other", f"{minutes:,.1f} min"
    yield from ((f"{law} Broken:", f"{count:,}") for law, count in total.laws.items())
    yield "processes left behind, and whatever else was broken", f"{len(total.broken):,}"
    yield from sorted(
        (what, f"{count:,}") for what, count in total.counts.items() if _adds_up(what)
    )


def _adds_up(what: str) -> bool:
    """Whether a count is one of every kind."""
    from orchestra.testing.chaos.campaign import OF_EVERY_KIND

    return what in OF_EVERY_KIND


def _rows(tallies: Mapping[str, Tally]) -> Iterator[tuple[str, str]]:
    from orchestra.testing.chaos.campaign import KINDS

    for kind, tally in tallies.items():
        told = (inspect.getdoc(KINDS[kind].strike) or "").splitlines()[0]
        yield f"{kind}: {told}", f"{tally.struck:,}"
        yield from (
            (f"{kind}: {what}", figure) for what, figure in tally.figures() if not _adds_up(what)
        )
