"""Tells whether a promised job, a delivery and a receipt are about one request. Knows the outbox, decides nothing.

Two requests with one id are a fault of their producers, but each was accepted: none may vanish.
"""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.failures import InvalidMessageError, InvalidPayloadError
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.outbox import delete_promise, lock_promise
from arqonce.ledger.receipts import Receipt
from arqonce.ledger.tables import DeadJob, PromisedJob
from arqonce.spec import JobSpec
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import decode
from arqonce.wire.keys import request_hash


def is_same_request(letter: DeadLetter, other: PromisedJob | DeadJob) -> bool:
    """Say whether the dead letter is about the same as the other row of its id, also if neither can be understood."""
    if letter.message == other.message:
        return True
    hashes = (letter.request_hash, other.request_hash)
    if None not in hashes and (letter.job_name, hashes[0]) == (other.job_name, hashes[1]):
        return True
    asked = _request_of(letter.message)
    return asked is not None and asked == _request_of(other.message)


async def settle_promise(
    sessions: async_sessionmaker[AsyncSession], receipt: Receipt, spec: JobSpec[Any, Any]
) -> bytes | None:
    """Remove the row of a job whose receipt says that it has ended; return its request as this version reads it.

    The row's hash may be that of another version of the code, with other defaults: then its message is compared. A row
    of another request stays, because that job is still owed. ``None``: nothing was removed. One to three round trips.
    """
    async with sessions.begin() as session:
        promise = await lock_promise(session, receipt.job_id)
        if promise is None or promise.job_name != receipt.job_name:
            return None
        asked = _hash_of(promise, spec)
        if receipt.request_hash not in {promise.request_hash, asked}:
            return None
        await delete_promise(session, receipt.job_id)
        return asked


def _hash_of(promise: PromisedJob, spec: JobSpec[Any, Any]) -> bytes | None:
    request = _request_of(promise.message)
    if request is None or promise.job_name != spec.name:
        return None
    try:
        return request_hash(read_payload(spec.payload, request[1], request[2]))
    except InvalidPayloadError:
        return None


def _request_of(message: bytes) -> tuple[Any, Any, Any] | None:
    """Return name and arguments, without when it was asked."""
    try:
        fields = decode(message)
    except InvalidMessageError:
        return None
    return fields.get("f"), fields.get("a") or [], fields.get("k") or {}
