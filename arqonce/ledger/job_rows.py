"""Reads the rows of one job, each question with no more columns than it needs: a role may see some and not others."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, LargeBinary, Text, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob, UniqueRequest


class PromiseRow(NamedTuple):
    """A promise, without its message."""

    job_name: str
    queue: str
    request_hash: bytes
    created_at: datetime
    due_at: datetime
    give_at: datetime
    dispatched_at: datetime | None
    dispatches: int


class ReceiptRow(NamedTuple):
    """A receipt, without the result."""

    job_name: str
    request_hash: bytes
    attempt: int
    finished_at: datetime
    failure: dict[str, str] | None


class LetterRow(NamedTuple):
    """A dead letter, without its message."""

    job_name: str | None
    queue: str | None
    request_hash: bytes | None
    reason: str
    explanation: str
    error: str
    sqlstate: str | None
    attempts: int
    died_at: datetime


async def promise_row(session: AsyncSession, job_id: str) -> PromiseRow | None:
    """Return the job's promise. One round trip."""
    columns = [getattr(PromisedJob, name) for name in PromiseRow._fields]
    row = (await session.execute(select(*columns).where(PromisedJob.job_id == job_id))).first()
    return None if row is None else PromiseRow(*row)


async def receipt_row(session: AsyncSession, job_id: str) -> ReceiptRow | None:
    """Return the job's receipt. One round trip."""
    columns = [getattr(JobReceipt, name) for name in ReceiptRow._fields]
    row = (await session.execute(select(*columns).where(JobReceipt.job_id == job_id))).first()
    return None if row is None else ReceiptRow(*row)


async def letter_row(session: AsyncSession, job_id: str) -> LetterRow | None:
    """Return the job's dead letter. One round trip."""
    columns = [getattr(DeadJob, name) for name in LetterRow._fields]
    row = (await session.execute(select(*columns).where(DeadJob.job_id == job_id))).first()
    return None if row is None else LetterRow(*row)


async def result_of(session: AsyncSession, job_id: str) -> dict[str, Any] | None:
    """Return the result on the job's receipt, which may be a person's data. One round trip."""
    found: dict[str, Any] | None = await session.scalar(select(JobReceipt.result).where(JobReceipt.job_id == job_id))
    return found


async def message_of_letter(session: AsyncSession, job_id: str) -> bytes | None:
    """Return the message of the job's dead letter, which may have a person's data. One round trip."""
    found: bytes | None = await session.scalar(select(DeadJob.message).where(DeadJob.job_id == job_id))
    return found


async def message_of_promise(session: AsyncSession, job_id: str) -> bytes | None:
    """Return the message of the job's promise, which may have a person's data. One round trip."""
    found: bytes | None = await session.scalar(select(PromisedJob.message).where(PromisedJob.job_id == job_id))
    return found


async def unique_until(session: AsyncSession, names: Collection[bytes], job_id: str) -> datetime | None:
    """Return until when an equal request is this job, if it has one of these names. One round trip."""
    latest = select(func.max(UniqueRequest.until)).where(UniqueRequest.job_id == job_id)
    named = latest.where(UniqueRequest.name.in_([bindparam(None, name, LargeBinary) for name in names]))
    found: datetime | None = await session.scalar(named)
    return found


class Related(NamedTuple):
    """Another job, and which table has it."""

    job_id: str
    job_name: str | None
    state: str
    """``promised``, ``succeeded``, ``refused`` or ``dead``."""

    at: datetime


_RELATED = text("""
    SELECT job_id, job_name, CASE WHEN failure IS NULL THEN 'succeeded' ELSE 'refused' END AS state, finished_at AS at
        FROM arqonce.receipts WHERE job_id = ANY(:ids)
    UNION ALL SELECT job_id, job_name, 'promised', created_at FROM arqonce.outbox WHERE job_id = ANY(:ids)
    UNION ALL SELECT job_id, job_name, 'dead', died_at FROM arqonce.dead_jobs AS dead WHERE job_id = ANY(:ids)
        AND NOT EXISTS (SELECT FROM arqonce.receipts WHERE receipts.job_id = dead.job_id)
    ORDER BY at, job_id
""").bindparams(bindparam("ids", type_=ARRAY(Text)))


async def jobs_among(session: AsyncSession, ids: Sequence[str]) -> Sequence[Related]:
    """Return those of these jobs that the ledger has. One round trip."""
    return [Related(*row) for row in await session.execute(text_for(session, _RELATED), {"ids": list(ids)})]
