"""
Ids: a never-reused number first, so that they sort and are found by it, then randomness, so that nobody guesses them.

A job's id is 8 characters of its number and 18 random ones (90 bits), all base 32 in lower case. A stage, task or
attempt continues its parent's id, so whatever belongs to a job shares a prefix and lies together in a store::

    0000000h6v3k9q...x7        job 17
    0000000h6v3k9q...x7-s0001   its stage 1 (counted from 0)
    0000000h6v3k9q...x7-0003   its task 3
    0000000h6v3k9q...x7-0003-0002  the second attempt at it
"""

from __future__ import annotations

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {digit: value for value, digit in enumerate(DIGITS)}
_NUMBER_CHARS = 8
_RANDOM_CHARS = 18
RANDOM_BITS = 5 * _RANDOM_CHARS
ROOT_CHARS = _NUMBER_CHARS + _RANDOM_CHARS
_PAIRS = tuple(high + low for high in DIGITS for low in DIGITS)


def encode(value: int, chars: int) -> str:
    """``value`` in base 32 with exactly ``chars`` digits (an even count), so that texts sort as numbers do."""
    if value >> (5 * chars):
        raise ValueError("the number needs more digits")
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(5 * chars - 10, -1, -10)])


def decode(text: str) -> int:
    """The number that `encode` wrote. Raises ValueError for anything else."""
    value = 0
    for digit in text:
        if digit not in _VALUES:
            raise ValueError(f"{digit!r} is not a digit of base 32")
        value = value * 32 + _VALUES[digit]
    return value


def new_id(number: int, bits: int) -> str:
    """The id of a project, job or worker with this number; of ``bits`` the lowest ``RANDOM_BITS`` count."""
    return encode(number, _NUMBER_CHARS) + "".join(
        [_PAIRS[(bits >> shift) & 1023] for shift in range(80, -1, -10)]
    )


def prefix_of(number: int) -> str:
    """What every id with this number begins with."""
    return encode(number, _NUMBER_CHARS)


def number_of(id: str) -> int:
    """The number inside an id. Raises ValueError when it is no id of ours."""
    if len(id) < ROOT_CHARS:
        raise ValueError("too short for an id")
    return decode(id[:_NUMBER_CHARS])


def stage_id(job_id: str, index: int) -> str:
    """The id of the job's stage ``index``, counted from 0."""
    return f"{job_id}-s{encode(index, 4)}"


def task_id(job_id: str, position: int) -> str:
    """The id of the job's task ``position``, counted from 1."""
    high, low = divmod(position, 1024)
    return f"{job_id}-{_PAIRS[high]}{_PAIRS[low]}"


def attempt_id(task_id: str, number: int) -> str:
    """The id of attempt ``number`` at a task, counted from 1."""
    high, low = divmod(number, 1024)
    return f"{task_id}-{_PAIRS[high]}{_PAIRS[low]}"


def job_of(id: str) -> str:
    """The job to which a stage, task or attempt belongs (or the job itself)."""
    return id[:ROOT_CHARS]


def task_of(attempt_id: str) -> str:
    """The task that an attempt tries."""
    return attempt_id[: ROOT_CHARS + 5]


def position_of(task_id: str) -> int:
    """The position inside a task's or attempt's id."""
    return decode(task_id[ROOT_CHARS + 1 : ROOT_CHARS + 5])


def attempt_number_of(attempt_id: str) -> int:
    """Which attempt at its task it is, counted from 1."""
    return decode(attempt_id[ROOT_CHARS + 6 :])
