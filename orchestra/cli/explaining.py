"""``why`` and ``diagram``."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.cli.acting import find_worker
from orchestra.cli.reach import USUAL, Reach, with_client
from orchestra.cli.selectors import select_one
from orchestra.client import Client
from orchestra.errors import Malformed
from orchestra.statemachine.replies import WhyAnswered


def why(
    selector: Annotated[str, Parameter(help="A job, a task, or a worker's name.")] = "last",
    /,
    *,
    json: Annotated[bool, Parameter(help="The ranked reasons as JSON.")] = False,
    reach: Reach = USUAL,
) -> int:
    """
    Tell why something waits, or ended as it did.

    The reason that matters most comes first.
    """
    try:
        wanted = select_one(selector).text
    except Malformed:
        # It may be a worker's name. Those that look like a selector are found by their id.
        wanted = ""

    async def go(client: Client) -> WhyAnswered:
        return await client.why(wanted or (await find_worker(client, selector)).id)

    answered = with_client(reach, go)
    if json:
        speech.put_json(answered)
        return exits.OK
    speech.put(speech.clean(f"{answered.subject} {answered.status}"))
    now_ms = int(time.time() * 1_000)
    for place, reason in enumerate(answered.reasons, 1):
        until = ""
        if reason.until_ms is not None and reason.until_ms > now_ms:
            until = f" (passes in {speech.elapsed_text(reason.until_ms - now_ms)})"
        speech.put(speech.clean(f"  {place}. {reason.text}{until}"))
        if reason.remedy:
            speech.put(speech.clean(f"     help: {reason.remedy}"))
    return exits.OK


def diagram() -> int:
    """
    Print every status and legal move as Markdown.

    With Mermaid diagrams: the page docs/lifecycles.md.
    """
    import sys

    from orchestra.statemachine.diagram import document

    sys.stdout.write(document())
    return exits.OK
