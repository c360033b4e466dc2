"""``token``: the tokens of a server, put into its file and taken out of it while it serves."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from orchestra.cli import exits, speech
from orchestra.cli.settings import configured
from orchestra.errors import Malformed
from orchestra.statemachine.values import value

SUMMARY = "Add, list and take out tokens of a server, while it serves."


@Parameter(name="*")
@value
class Place:
    """Which file: the one that `serve` reads with the same words."""

    data: Annotated[
        str | None, Parameter(help="The server's data file: the tokens are beside it.")
    ] = None
    token_file: Annotated[
        str | None, Parameter(help="The token file itself.", name=["--token-file"])
    ] = None
    config: Annotated[
        str | None, Parameter(help="Settings file. [default: orchestra.toml, if there is one]")
    ] = None

    def path(self) -> str:
        """The path of the token file. Raises `Malformed` when nothing names it."""
        flags = {"data": self.data, "token_file": self.token_file}
        found = configured(flags, self.config).token_path
        if not found:
            remedy = "give --data FILE, as the server has it, or --token-file FILE"
            raise Malformed("no token file is named", where="--token-file", remedy=remedy)
        return found


USUAL = Place()


@value
class Entry:
    """A token as ``--json`` shows it; ``worker`` is empty for one that is bound to none."""

    name: str
    role: str
    worker: str


def add(
    name: Annotated[str, Parameter(help="What it is called: whose it is, or where.")],
    /,
    *,
    role: Annotated[
        Literal["operator", "viewer", "worker"],
        Parameter(help="What it opens.", show_default=False),
    ],
    worker: Annotated[
        str | None,
        Parameter(help="Bind it to the worker of this name, which then no other token opens."),
    ] = None,
    place: Place = USUAL,
) -> int:
    """
    Draw a token, keep its digest in the file, and print it: it is shown this once.

    The server reads the file again by itself. A file that is not there is made, as the first start of a server makes it.
    """
    from orchestra.dialects.wire import Role
    from orchestra.transports.token_changes import add_token
    from orchestra.transports.tokens import check_binding, open_tokens

    path, held = place.path(), Role(role)
    if worker is not None:
        # An empty name would bind nothing.
        check_binding(held, worker, "--worker")
    is_new = not Path(path).exists()
    open_tokens(path)
    secret = add_token(path, name, held, worker or "")
    speech.put(secret.reveal())
    made = "made with its first two tokens, " if is_new else ""
    alone = f", for the worker {worker!r} alone" if worker else ""
    speech.say(speech.clean(f"{path}: {made}{role}'s token {name!r} added{alone}"))
    if held is Role.WORKER:
        told = f"start it with: orchestra worker URL --name {shlex.quote(worker or 'NAME')} --token-file FILE"
        speech.say(speech.clean(f"{told}  (FILE has mode 0600 and nothing in it but the token)"))
    return exits.OK


def ls(
    *,
    json: Annotated[bool, Parameter(help="An array of tokens as JSON.")] = False,
    place: Place = USUAL,
) -> int:
    """List what tokens are called and what they open; never the tokens themselves."""
    from orchestra.transports.tokens import read_tokens

    path = place.path()
    try:
        tokens = read_tokens(path).tokens
    except FileNotFoundError:
        raise _missing(path) from None
    if json:
        speech.put_plain_json([Entry(each.name, each.role.value, each.worker) for each in tokens])
    else:
        rows = [(each.name, each.role.value, each.worker) for each in tokens]
        speech.put_table(("NAME", "ROLE", "WORKER"), rows)
    return exits.OK


def rm(
    name: Annotated[str, Parameter(help="As `token ls` lists it.")],
    /,
    *,
    force: Annotated[bool, Parameter(help="Also the last operator's token.")] = False,
    place: Place = USUAL,
) -> int:
    """
    Take a token out of the file: the next request with it is refused.

    An open connection of it ends at its next message.
    """
    from orchestra.transports.token_changes import remove_token
    from orchestra.transports.tokens import read_tokens

    path = place.path()
    try:
        gone = remove_token(path, name, force=force)
    except FileNotFoundError:
        raise _missing(path) from None
    left = read_tokens(path)
    speech.say(speech.clean(f"{path}: token {name!r} taken out"))
    for worker in sorted({each.worker for each in gone if each.worker}):
        if not left.binds(worker):
            told = f"no token is bound to the worker {worker!r} any more: any that is bound to none opens it"
            speech.warn(speech.clean(told))
    return exits.OK


def _missing(path: str) -> Malformed:
    remedy = "a server makes it when it first asks for tokens, and so does orchestra token add"
    return Malformed("there is no such file", where=f"token_file {path}", remedy=remedy)


def token(only: str = "", *, sort_key: int = 0) -> App:
    """
    Add, list and take out tokens of a server, while it serves.

    All of them are small: whichever ``only`` names, they are all known.
    """
    del only
    app = App(name="token", help=SUMMARY, sort_key=sort_key)
    for order, function in enumerate((add, ls, rm)):
        app.command(function, sort_key=order, help_epilogue="")
    return app
