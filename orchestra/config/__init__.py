"""
How an orchestrator is set up: one frozen `Config`, and the rules by which four origins become one.

A setting is taken from the first of these that has it: a flag of the command line, an environment variable
``ORCHESTRA_*``, the file ``orchestra.toml``, the default. Nothing here reads a file or the environment: `configure` is given
their contents, so that the same call gives the same answer everywhere.

In the file, settings are top-level keys, ``[limits]`` is a table, and ``[dialects]`` maps a name to ``HOST:PORT``, or has a table for
each, ``[dialects.NAME]``, with ``listen`` for the port and options of its own; both are joined over the origins. In the environment a
setting is its name in capitals (``ORCHESTRA_LISTEN``, ``ORCHESTRA_LIMITS_IDLE_MS``), and lists are separated by commas.
"""

from __future__ import annotations

from orchestra.config.origins import (
    SETTINGS,
    Configured,
    configure,
    parse_environment,
    parse_toml,
    variable,
)
from orchestra.config.readers import Address, DialectPort, parse_address
from orchestra.config.values import Config, Limits

__all__ = [
    "SETTINGS",
    "Address",
    "Config",
    "Configured",
    "DialectPort",
    "Limits",
    "configure",
    "parse_address",
    "parse_environment",
    "parse_toml",
    "variable",
]
