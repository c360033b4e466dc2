"""What an import costs: CPU time and modules. Without a name: nothing, the bare interpreter."""

from __future__ import annotations

import sys
import time

before = set(sys.modules)
began = time.process_time()
for name in sys.argv[1:]:
    __import__(name)
taken_ms = (time.process_time() - began) * 1000
modules = len(set(sys.modules) - before)

from figures import tell  # noqa: E402 - what it imports must not count

tell({"import_cpu_ms": taken_ms, "modules": modules})
