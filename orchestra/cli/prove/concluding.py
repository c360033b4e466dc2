"""What every command of ``prove`` ends with: its evidence is told, and put on a page when one is named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.testing.proof_page import Evidence, write

Write = Annotated[
    str | None, Parameter(help="The page to put the result on, such as docs/proof.md.")
]
Ledger = Annotated[
    Path | None,
    Parameter(
        help="Keep there which seeds were played and what they came to, and play what is not there yet."
    ),
]
Json = Annotated[bool, Parameter(help="The result as JSON.")]


def one_in(stride: int) -> str:
    """How much a stride leaves of what there is."""
    return "every one" if stride == 1 else f"one in {stride:,}"


def untried(trials: Mapping[str, int]) -> list[str]:
    """A complaint for each name with no trial: where nothing was tried, nothing was shown."""
    return [f"nothing was tried: {name}" for name, number in trials.items() if not number]


def conclude(evidence: Evidence, *, proved: bool, page: str | None, json: bool) -> int:
    """Tell the evidence, put it on the page if there is one, and return the exit code: 0 when it was proved, else 1."""
    if json:
        speech.put_plain_json(evidence)
    else:
        speech.put_table(("WHAT", "FIGURE"), evidence.figures)
        if evidence.seeds:
            speech.put(f"seeds: {speech.clean(evidence.seeds)}")
        speech.put(speech.clean(evidence.result))
    if page is not None:
        write(evidence, page)
    return exits.OK if proved else exits.FAILED
