"""Idempotency: a key that was used before gets the first answer again, and never a second job."""

from __future__ import annotations

import hashlib

from orchestra.errors import Conflict, Malformed
from orchestra.statemachine import limits
from orchestra.statemachine.commands import SubmitJob
from orchestra.statemachine.records import Receipt
from orchestra.statemachine.replies import JobAccepted
from orchestra.statemachine.transaction import Transaction


def receipt_id(principal: str, key: str) -> str:
    """Keys belong to who used them: two principals never meet in one."""
    return f"{len(principal)}:{principal}/{key}"


def fingerprint(command: SubmitJob) -> str:
    """What the command says, in 64 hexadecimal digits."""
    return hashlib.sha256(repr(command).encode()).hexdigest()


def recall(tx: Transaction, command: SubmitJob, key: str) -> JobAccepted | None:
    """
    The first answer to this key; None when it is new.

    Raises:
        Conflict: The key was used for something else.
        Malformed: The key is too long.
    """
    if len(key) > limits.NAME_CHARS_MAX:
        raise Malformed(
            f"it has {len(key)} characters",
            where="key",
            remedy=f"use at most {limits.NAME_CHARS_MAX}",
        )
    receipt = tx.find(Receipt, receipt_id(tx.principal, key))
    if receipt is None or receipt.until_ms <= tx.now_ms:
        return None
    if receipt.fingerprint != fingerprint(command):
        raise Conflict(
            "this key was used for a different job",
            where="key",
            remedy="use a new key, or submit exactly the same again",
        )
    return JobAccepted(receipt.job_id, receipt.number, receipt.tasks, repeated=True)


def remember(tx: Transaction, command: SubmitJob, key: str, reply: JobAccepted) -> None:
    """Keep the answer for ``limits.RECEIPT_MS``, in the same commit as the job."""
    tx.put(
        Receipt(
            id=receipt_id(tx.principal, key),
            fingerprint=fingerprint(command),
            job_id=reply.job_id,
            number=reply.number,
            tasks=reply.tasks,
            until_ms=tx.now_ms + limits.RECEIPT_MS,
        )
    )
