"""Attempts that failed: what an operator needs to know why a job has not ended yet, or not well. Knows no queue."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.database.driver import fetch_by_driver
from arqonce.ledger.namespace import sql_for
from arqonce.ledger.tables import AttemptRecord

_LONGEST = 2000
"""Characters of an error that are kept."""


class FailedAttempt(NamedTuple):
    """An attempt that failed. It is written some time later, so its times are those of ``time.monotonic()``."""

    job_id: str
    attempt: int
    job_name: str
    queue: str
    code: str
    sqlstate: str | None
    error: str
    worker: str
    started: float
    failed: float
    counted: bool
    retry_in: timedelta | None
    """After how long the job was to run again; ``None`` if this was its last attempt."""


_INSERT = """
    INSERT INTO arqonce.attempts
        (job_id, attempt, job_name, queue, code, sqlstate, error, worker, started_at, failed_at, retry_at, counted)
    SELECT job_id, attempt, job_name, queue, code, sqlstate, error, worker, failed_at - (started_ago - failed_ago),
        failed_at, failed_at + retry_in, counted
    FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::interval[], $10::interval[], $11::interval[], $12::boolean[]) AS failed
        (job_id, attempt, job_name, queue, code, sqlstate, error, worker, started_ago, failed_ago, retry_in, counted),
        LATERAL (SELECT least(clock_timestamp() - failed_ago, now()) AS failed_at) AS moment
"""
"""By the server's clock, as all times of the ledger; not after that of the dead letter in the same transaction."""


async def insert_attempts(session: AsyncSession, attempts: Sequence[FailedAttempt]) -> None:
    """Write attempts that failed. One round trip."""
    now = time.monotonic()
    rows = [
        (
            *attempt[:6], attempt.error[:_LONGEST], attempt.worker, timedelta(seconds=now - attempt.started),
            timedelta(seconds=now - attempt.failed), attempt.retry_in, attempt.counted,
        )
        for attempt in attempts
    ]  # fmt: skip
    await fetch_by_driver(session, sql_for(session, _INSERT), *map(list, zip(*rows, strict=True)))


async def attempts_of(session: AsyncSession, job_id: str, *, limit: int) -> list[AttemptRecord]:
    """Return the latest failed attempts of a job, the earliest first. One round trip."""
    statement = select(AttemptRecord).where(AttemptRecord.job_id == job_id)
    found = await session.scalars(
        statement.order_by(AttemptRecord.failed_at.desc(), AttemptRecord.attempt.desc()).limit(limit)
    )
    return list(found)[::-1]
