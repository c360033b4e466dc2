"""
``prove``: the commands that try to break the coordination, and write down what they tried.

A further one is a module here with a function of its name, and a row in `COMMANDS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from cyclopts import App

COMMANDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "explore": (
            "explore",
            "Visit every state that the core can come to in small worlds: any order, any loss, any crash.",
        ),
        "core": (
            "core",
            "Play random schedules of the core: lost messages, crashes, freezes, and every invariant.",
        ),
        "rules": (
            "rules",
            "Take out each safety rule of the core in turn, and count the schedules until it is missed.",
        ),
        "museum": (
            "museum",
            "Rebuild races and lost work of other systems in this one, and count the schedules until each is found.",
        ),
        "simulate": (
            "simulate",
            "Play the whole system on a simulated net, disk, clock and machines, under drawn faults.",
        ),
        "determinism": (
            "determinism",
            "Play each seed in two interpreters, and compare the stories and the rows.",
        ),
        "power-loss": (
            "power_loss",
            "Cut the power after every operation of the store on its disk, and fail its operations in turn.",
        ),
        "recovery": (
            "recovery",
            "Cut the power again while the store starts after a cut, and fail a second operation while it recovers from a first.",
        ),
        "chaos": (
            "chaos",
            "Kill, freeze, cut off and starve real servers and workers, and hold what clients were told against the store.",
        ),
        "soak": (
            "soak",
            "Keep a real server and real workers at steady work, and see that none of them takes more and more of the machine.",
        ),
        "linearizability": (
            "linearizability",
            "Have many clients ask a real server that is killed, and look for an order that explains every answer.",
        ),
        "fuzz": (
            "fuzz",
            "Feed hostile input to every surface: it is taken or refused, nothing else.",
        ),
        "sockets": (
            "sockets",
            "Do to real servers what hostile sockets do: odd bytes, rule-breaking frames, slowness, floods.",
        ),
        "replay": (
            "replay",
            "Give the core again what led to a bug of orchestra, and see whether it still leads there.",
        ),
    }
)
"""Each command with its module, and what it does. Only the module of the one that is called for is loaded."""

SUMMARY = "Try to break the coordination, and write down what was tried."


def prove(only: str = "", *, sort_key: int = 0) -> App:
    """
    Try to break the coordination, and write down what was tried.

    Of the command ``only`` everything is known, of the others what they are called and do.
    """
    app = App(
        name="prove",
        help=f"{SUMMARY}\n\nWith --write PAGE the result is put on that page.",
        sort_key=sort_key,
    )
    for order, (name, (module, summary)) in enumerate(COMMANDS.items()):
        if name == only:
            loaded = import_module(f"orchestra.cli.prove.{module}")
            function = getattr(loaded, name.replace("-", "_"))
            app.command(function, name=name, sort_key=order, help_epilogue="")
        else:
            app.command(App(name=name, help=summary, sort_key=order))
    return app
