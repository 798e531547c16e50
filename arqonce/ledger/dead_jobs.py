"""Dead letters: jobs that failed for good, with their message and the reason. Knows no queue."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, case, delete, exists, func, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.tables import DeadJob, JobReceipt


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A job that failed for good."""

    job_id: str
    job_name: str | None
    message: bytes
    reason: str
    explanation: str
    error: str
    sqlstate: str | None
    attempts: int
    queue: str
    request_hash: bytes | None = None
    """The hash of the request; ``None`` if the message could not be read."""


@dataclass(frozen=True, kw_only=True)
class DeadFilter:
    """Selects dead letters; a field that is ``None`` selects all."""

    job_ids: Collection[str] | None = None
    job_name: str | None = None
    reason: str | None = None
    since: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter as SQL. It omits letters whose request has taken effect meanwhile."""
        conditions: list[ColumnElement[bool]] = [~_has_taken_effect()]
        if self.job_ids is not None:
            conditions.append(DeadJob.job_id.in_(self.job_ids))
        if self.job_name is not None:
            conditions.append(DeadJob.job_name == self.job_name)
        if self.reason is not None:
            conditions.append(DeadJob.reason == self.reason)
        if self.since is not None:
            conditions.append(DeadJob.died_at >= self.since)
        return conditions


def _has_taken_effect() -> ColumnElement[bool]:
    is_same = or_(DeadJob.request_hash.is_(None), DeadJob.request_hash == JobReceipt.request_hash)
    return exists(JobReceipt.job_id).where(JobReceipt.job_id == DeadJob.job_id, is_same)


async def lock_dead_job(session: AsyncSession, job_id: str) -> DeadJob | None:
    """Return the dead letter, locked until the end of the transaction; ``None`` if there is none. One round trip."""
    return (await session.scalars(select(DeadJob).where(DeadJob.job_id == job_id).with_for_update())).one_or_none()


async def insert_dead_letter(session: AsyncSession, letter: DeadLetter) -> bool:
    """Insert or replace the job's dead letter; return whether it was written.

    It is not if the job has a receipt, because another worker has completed it. Two round trips.
    """
    if await session.scalar(select(exists(JobReceipt.job_id).where(JobReceipt.job_id == letter.job_id))):
        return False
    statement = insert(DeadJob).values(**vars(letter))
    replaced: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in (*vars(letter), "died_at")}
    # A job delivered again after its letter has no outbox row any more, and the hash of an unreadable message is known
    # only from the earlier letter.
    known = case((DeadJob.message == statement.excluded.message, DeadJob.request_hash))
    replaced["request_hash"] = func.coalesce(statement.excluded.request_hash, known)
    await session.execute(statement.on_conflict_do_update(index_elements=[DeadJob.job_id], set_=replaced))
    return True


async def dead_jobs(session: AsyncSession, which: DeadFilter, *, limit: int) -> Sequence[DeadJob]:
    """Return at most ``limit`` dead letters, the latest first. One round trip."""
    statement = select(DeadJob).where(*which.conditions()).order_by(DeadJob.died_at.desc(), DeadJob.job_id).limit(limit)
    return (await session.scalars(statement)).all()


async def count_dead_jobs(session: AsyncSession, which: DeadFilter) -> int:
    """Return how many dead letters there are. One round trip, which reads all of them."""
    return await session.scalar(select(func.count()).select_from(DeadJob).where(*which.conditions())) or 0


async def delete_dead_jobs(session: AsyncSession, which: DeadFilter) -> int:
    """Delete dead letters for good; return how many. One round trip."""
    removed = await session.scalars(delete(DeadJob).where(*which.conditions()).returning(DeadJob.job_id))
    return len(removed.all())
