"""``migrate``: a data file for an older or newer orchestra."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from orchestra.cli import exits, speech
from orchestra.errors import Malformed
from orchestra.statemachine.values import value


@value
class Moved:
    """What became of a data file, as ``--json`` prints it. ``copy`` is the file as it was; empty when nothing was to be done."""

    file: str
    was: int
    schema: int
    copy: str


def migrate(
    file: Annotated[str, Parameter(help="The data file. No server may have it open.")],
    /,
    *,
    to: Annotated[int, Parameter(help="The schema that it is to have.")],
    json: Annotated[bool, Parameter(help="What was done, as JSON.")] = False,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Say nothing about what went well.")
    ] = False,
) -> int:
    """
    Bring a data file to another version's schema.

    It is copied before, beside itself. A start brings an older file up by itself; down is for the return to an older orchestra, which
    tells the number that it knows.
    """
    from orchestra.storage.migrations import LATEST
    from orchestra.storage.sqlite_migrate import migrate_file

    if not 1 <= to <= LATEST:
        raise Malformed(f"there is no schema {to}", where="--to", remedy=f"from 1 to {LATEST}")
    done = migrate_file(file, to)
    if json:
        speech.put_plain_json(Moved(file, done.was, to, done.copy))
    elif not quiet:
        if not done.copy:
            speech.put(speech.clean(f"{file} has schema {to} already"))
            return exits.OK
        speech.put(speech.clean(f"{file} has schema {to}, and had {done.was}"))
        speech.put(speech.clean(f"as it was it is in {done.copy}"))
        if to < LATEST:
            speech.say(f"the next start of this orchestra brings it to {LATEST} again")
    return exits.OK
