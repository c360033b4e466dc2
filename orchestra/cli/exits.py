"""What the exit codes mean. They are part of the interface: programs may go by them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from orchestra.errors import OrchestraError, Unavailable

OK = 0
FAILED = 1
USAGE = 2
CANCELLED = 3
UNREACHABLE = 4
DEFECT = 70
"""EX_SOFTWARE of sysexits.h."""
TIMEOUT = 124
"""As coreutils' timeout has it."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 and the number of the signal, as shells tell it."""

MEANING: Mapping[int, str] = MappingProxyType(
    {
        OK: "done; the job completed",
        FAILED: "a job failed, or doctor found something broken",
        USAGE: "the command, a file or an argument is wrong, or the server refused it",
        CANCELLED: "the job was cancelled",
        UNREACHABLE: "nobody answers, or the store is not available",
        DEFECT: "a bug of ours; there is a traceback",
        TIMEOUT: "the time was over before the job's end",
        INTERRUPTED: "Ctrl-C; what runs on a server goes on",
        BROKEN_PIPE: "whoever read stdout went away",
    }
)

OF_JOB: Mapping[str, int] = MappingProxyType(
    {
        "completed": OK,
        "failed": FAILED,
        "cancelled": CANCELLED,
    }
)
"""By how a job ended. In words, so that showing help loads nothing of the core."""


def of_error(error: OrchestraError) -> int:
    """The exit code of an error that is not a defect."""
    return UNREACHABLE if isinstance(error, Unavailable) else USAGE
