"""How a program's end is told: exit codes, signals, limits and results, in words that say what to do."""

from __future__ import annotations

import os
import signal
import stat

import msgspec

from orchestra.engines.guard import Ward
from orchestra.errors import Malformed
from orchestra.ports import Ended
from orchestra.statemachine.limits import REASON_CHARS_MAX, RESULT_BYTES_MAX
from orchestra.statemachine.records import Cause

RESULT_FILE = "result.json"
PLAIN_RESULT = b'{"exit_code":0}'
"""The result of a program that leaves no file."""

_MIB = 1024 * 1024
_SHELL_SIGNAL = 128


def bounded(text: str) -> str:
    """``text`` cut in the middle to what a reason may hold, its end whole: the last line says most."""
    if len(text) <= REASON_CHARS_MAX:
        return text
    head = REASON_CHARS_MAX // 4
    return f"{text[:head]}\n...\n{text[head + 5 - REASON_CHARS_MAX :]}"


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; real-time signals have a number only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def refused(ward: Ward) -> Ended:
    """The end of an attempt whose program was never started."""
    if "lease" in ward.refused:
        return Ended(
            "failed", cause=Cause.LOST, message="the worker's lease passed before it began"
        )
    return Ended("failed", cause=Cause.UNSTARTABLE, message=bounded(ward.refused))


def ended_by_guardian(ward: Ward, memory_bytes: int) -> Ended | None:
    """The end of an attempt that was ended for a reason of its guardian's; None when it was not."""
    if ward.why == "memory":
        used, most = ward.peak_bytes / _MIB, memory_bytes / _MIB
        message = f"its processes used {used:.1f} MiB of memory; the limit is {most:.1f} MiB"
        return Ended("failed", cause=Cause.MEMORY, message=message, signal="SIGKILL")
    if ward.why == "lease":
        message = "the worker's lease passed unrenewed, so its guardian ended it"
        return Ended("failed", cause=Cause.LOST, message=message, signal="SIGKILL")
    if ward.why == "guardian":
        message = "its guardian process was killed from outside, so what was left of it was ended"
        return Ended("failed", cause=Cause.ERROR, message=message)
    return None


def stopped(ward: Ward) -> Ended:
    """The end of an attempt that was asked to stop, and of which nothing is alive."""
    code, name = decoded(ward.status)
    return Ended("stopped", cause=Cause.CANCELLED, exit_code=code, signal=name)


def decoded(status: int | None) -> tuple[int | None, str]:
    """Exit code and name of the signal in a status of `os.waitpid`; one of the two is empty."""
    if status is None:
        return None, ""
    if os.WIFSIGNALED(status):
        return None, signal_name(os.WTERMSIG(status))
    return os.waitstatus_to_exitcode(status), ""


def exited(status: int | None, folder: str, last_words: bytes) -> Ended:
    """The end of an attempt whose program ended by itself."""
    code, name = decoded(status)
    if name:
        hint = "; perhaps the machine ran out of memory" if name == "SIGKILL" else ""
        message = bounded(f"ended by {name}{hint}{_said(last_words)}")
        return Ended("failed", cause=Cause.SIGNAL, message=message, signal=name)
    if code:
        hint = ""
        if code > _SHELL_SIGNAL:
            hint = f" (a shell says so for {signal_name(code - _SHELL_SIGNAL)})"
        message = bounded(f"exit code {code}{hint}{_said(last_words)}")
        return Ended("failed", cause=Cause.EXIT, message=message, exit_code=code)
    try:
        result = read_result(f"{folder}/{RESULT_FILE}")
    except Malformed as problem:
        return Ended("failed", cause=Cause.ERROR, message=bounded(str(problem)), exit_code=0)
    return Ended("completed", result=result, exit_code=0)


def read_result(path: str) -> bytes:
    """The JSON in the file, or `PLAIN_RESULT` without one. Raises Malformed for anything but a plain file of fitting JSON."""
    try:
        # Neither a link that leads elsewhere nor a pipe that blocks is followed.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return PLAIN_RESULT
    except OSError as problem:
        message = f"can not be read: {problem.strerror}"
        raise Malformed(message, where=RESULT_FILE) from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Malformed("is no plain file", where=RESULT_FILE)
        data = bytearray()
        while len(data) <= RESULT_BYTES_MAX and (part := os.read(fd, RESULT_BYTES_MAX + 1)):
            data += part
    finally:
        os.close(fd)
    if len(data) > RESULT_BYTES_MAX:
        remedy = "write big outputs to the shared folder and put their path into the result"
        message = f"is longer than {RESULT_BYTES_MAX} bytes"
        raise Malformed(message, where=RESULT_FILE, remedy=remedy)
    try:
        return msgspec.json.encode(msgspec.json.decode(bytes(data)))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise Malformed(f"is no valid JSON: {problem}", where=RESULT_FILE) from None


def _said(last_words: bytes) -> str:
    lines = last_words.decode(errors="replace").strip().splitlines()
    return "; its last words: " + "\n".join(lines[-3:]) if lines else ""


def died(status: int | None) -> Ended:
    """The end of a call whose process ended before the function did."""
    code, name = decoded(status)
    if name:
        message = f"its process was ended by {name}"
        return Ended("failed", cause=Cause.SIGNAL, message=message, signal=name)
    message = f"its process ended with exit code {code} before the function returned"
    return Ended("failed", cause=Cause.EXIT, message=message, exit_code=code)
