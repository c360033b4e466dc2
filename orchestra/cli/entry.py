"""From the words of the command line to an exit code: parsing, help, and every error's last stop."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from orchestra.cli import exits
from orchestra.errors import Defect, Malformed, OrchestraError, Rejected, Unavailable

if TYPE_CHECKING:
    from rich.console import Console

HELP = """Coordinates work: projects, jobs, tasks and the workers that run them.

Try it:               orchestra run PROJECT.toml
On several machines:  orchestra serve, on the others: orchestra worker URL
Then:                 orchestra submit PROJECT.toml, orchestra watch last
"""

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "serve": (
            "serving",
            "Serve an orchestrator, its API, and a worker for the programs of jobs.",
        ),
        "worker": ("joining", "Run tasks for a server, as one of its workers."),
        "run": ("running", "Run a project in this process, from start to end."),
        "submit": ("submitting", "Submit a project file, or one program."),
        "ls": ("listing", "List the newest jobs, or the tasks of one."),
        "show": ("listing", "Show a job with its stages, or a task with its attempts."),
        "watch": ("watching", "Watch a job until it ends; the exit code tells how."),
        "logs": ("output", "Print what tasks wrote."),
        "why": ("explaining", "Tell why something waits, or ended as it did."),
        "stop": ("acting", "Stop jobs and tasks."),
        "pause": ("acting", "Pause jobs: no further task starts, what runs goes on."),
        "resume": ("acting", "Go on with paused jobs."),
        "retry": ("acting", "Try failed or cancelled tasks again."),
        "workers": ("listing", "List workers."),
        "pause-worker": ("acting", "Give a worker nothing new; what it runs goes on."),
        "resume-worker": ("acting", "Give a paused worker work again."),
        "token": ("tokens", "Add, list and take out tokens of a server, while it serves."),
        "backup": ("acting", "Copy everything into a new file while the server serves."),
        "migrate": ("migrating", "Bring a data file to another version's schema."),
        "doctor": ("doctor", "Look at all that work depends on, and say what to do."),
        "diagram": ("explaining", "Print every status and legal move as Markdown."),
        "demo": ("demo", "Show a server and five workers at work, and with --chaos how they heal."),
        "prove": ("prove", "Try to break the coordination, and write down what was tried."),
    }
)
"""Each command with its module, and what it does. Only the module of the one that is called for is loaded."""

GROUPS = frozenset({"prove", "token"})
"""Commands that have commands of their own; the function makes them, given the one that is called for."""

PIPED_CHARS = 140
"""Lines of help that is piped."""

ALONE = ("--help", "-h", "--version")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("orchestra-coordinator")
    except PackageNotFoundError:
        return "unknown (not installed)"


def _epilogue() -> str:
    lines = [f"  {code:3}  {told}" for code, told in exits.MEANING.items()]
    selectors = (
        "Selectors: 17, last, all, 3,5-8, 17.3 (task 3 of job 17), 17.3-9, last.3, or an id."
    )
    durations = "Durations: 90, 500ms, 10m, 1h30m."
    return "\n".join([selectors, durations, "", "Exit codes:", *lines])


def command_line(only: str = "", inner: str = "") -> App:
    """
    The command line. Of the command ``only`` everything is known, of the others what they are called and do.

    ``inner`` is the command that is called for inside ``only``, when that is one of `GROUPS`.
    """
    on_terminal = sys.stdout.isatty()
    app = App(
        name="orchestra",
        help=HELP,
        console=None if on_terminal else _wide(),
        help_epilogue=_epilogue(),
        help_format="plaintext",
        help_formatter="default" if on_terminal else "plain",
        version=_version,
        version_format="plaintext",
        default_parameter=Parameter(negative=(), show_default=_tell_default),
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
    )
    for order, (name, (module, summary)) in enumerate(COMMANDS.items()):
        if name == only:
            loaded = import_module(f"orchestra.cli.{module}")
            found = getattr(loaded, name.replace("-", "_"))
            if name in GROUPS:
                app.command(found(inner, sort_key=order))
            else:
                app.command(found, name=name, sort_key=order, help_epilogue="")
        else:
            app.command(App(name=name, help=summary, sort_key=order))
    return app


def _wide() -> Console:
    """Where help goes that nobody looks at on a terminal: its lines need not be broken."""
    from rich.console import Console

    return Console(width=PIPED_CHARS)


def _tell_default(value: Any) -> str | None:
    # What is empty or off by default needs no words.
    return None if value in (None, "", (), False) else str(value)


def carry_out(words: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit code. Nothing is raised but SystemExit."""
    given = list(sys.argv[1:] if words is None else words)
    try:
        code = _obey(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        return _reader_left()
    except BaseExceptionGroup as group:
        return _report(group)
    except Exception as error:  # noqa: BLE001 - the last stop: what is no error of ours is shown with its traceback
        return _report(error)
    return code


def _obey(words: list[str]) -> int:
    words, argv = _split_argv(words)
    if words and words[0].startswith("-") and words[0] not in ALONE:
        remedy = f"orchestra COMMAND {words[0]} ..."
        raise Malformed("an option stands after its command", where=words[0], remedy=remedy)
    command, bound, ignored = command_line(*words[:2]).parse_args(words)
    more: dict[str, Any] = {"argv": argv} if "argv" in ignored else {}
    return command(*bound.args, **bound.kwargs, **more) or exits.OK


def _split_argv(words: list[str]) -> tuple[list[str], tuple[str, ...] | None]:
    """What stands behind ``--`` of ``submit`` is a program's own command line and none of ours."""
    if words[:1] == ["submit"] and "--" in words:
        place = words.index("--")
        return words[:place], tuple(words[place + 1 :])
    return words, None


def _reader_left() -> int:
    # Whatever is still buffered has nowhere to go; without this the interpreter would complain at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return exits.BROKEN_PIPE


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _report(error: BaseException) -> int:
    """Say what went wrong; the exit code. Of several errors the first that is told for is told."""
    from orchestra.cli.speech import complain

    leaves = list(_leaves(error))
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        return _reader_left()
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return exits.INTERRUPTED
    if not all(isinstance(leaf, OrchestraError | TimeoutError | CycloptsError) for leaf in leaves):
        return _tell_defect(error)
    first = leaves[0]
    if any(isinstance(leaf, Defect) for leaf in leaves):
        return _tell_defect(error)
    if isinstance(first, CycloptsError):
        return _tell_usage(first)
    if isinstance(first, TimeoutError):
        complain(str(first) or "the time is over")
        return exits.TIMEOUT
    if isinstance(first, Rejected):
        complain(first.message, where=first.where, remedy=first.remedy)
    elif isinstance(first, Unavailable):
        complain(str(first).partition("; is the server running")[0], remedy=_remedy_of(first))
    else:
        complain(str(first))
    return exits.of_error(first) if isinstance(first, OrchestraError) else exits.USAGE


def _remedy_of(error: Unavailable) -> str:
    from orchestra.errors import PeerClosed, StoreFailed, StoreTaken

    if isinstance(error, StoreTaken):
        return "one process writes to a data file: use that one by --server URL, or stop it"
    if isinstance(error, StoreFailed):
        return "make room" if error.full else "orchestra doctor --data FILE looks at the file"
    if isinstance(error, PeerClosed) or type(error) is Unavailable:
        return "start a server with `orchestra serve`, or name yours by --server URL or ORCHESTRA_SERVER"
    return ""


def _tell_usage(error: CycloptsError) -> int:
    from orchestra.cli.speech import complain

    told, _, guess = str(error).rstrip(".").partition(" Did you mean ")
    remedy = f"did you mean {guess.partition('?')[0]}?" if guess else ""
    if not remedy:
        chain = " ".join(error.command_chain or ())
        remedy = f"orchestra {chain} --help" if chain else "orchestra --help"
    complain(told[:1].lower() + told[1:].rstrip("."), remedy=remedy)
    return exits.USAGE


def _tell_defect(error: BaseException) -> int:
    import traceback

    from orchestra.cli.speech import complain

    traceback.print_exception(error)
    complain("this is a bug of orchestra", remedy="please report it with the lines above")
    return exits.DEFECT
