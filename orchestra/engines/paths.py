"""What stands at a path on this machine."""

from __future__ import annotations

import os
import stat

from orchestra.dialects.job_runner_programs import Kind


def kind_at(path: str) -> Kind:
    """What stands there, itself and not what it points to. Looks at the file system, and opens nothing."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return Kind.MISSING
    except (OSError, ValueError):
        return Kind.OTHER
    if stat.S_ISREG(mode):
        return Kind.FILE
    return Kind.FOLDER if stat.S_ISDIR(mode) else Kind.OTHER
