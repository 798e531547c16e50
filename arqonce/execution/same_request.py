"""Compares outbox rows, dead letters and receipts with the same id: are they about the same request? Decides nothing.

Two requests with one id are a fault of their producers, but both were accepted, so neither may be lost.
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
from arqonce.wire.request import request_hash


def is_same_request(letter: DeadLetter, other: PromisedJob | DeadJob) -> bool:
    """Return whether the letter and the other row with its id are about the same request, decodable or not."""
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
    """Delete the outbox row of a job that has this receipt; return its request hash as this version computes it.

    Another version of the code, with other defaults, may have computed the row's hash; so its message is compared, too.
    A row of another request stays, because that job is still promised. Returns ``None`` if no row was deleted, or if
    this version cannot read it. One to three round trips.
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
    """Return the job's name and arguments, without the enqueue time."""
    try:
        fields = decode(message)
    except InvalidMessageError:
        return None
    return fields.get("f"), fields.get("a") or [], fields.get("k") or {}
