"""The outbox: jobs that were promised in a transaction and have not ended. Knows neither payloads nor Redis.

A promised job is in exactly one of the tables ``outbox`` (it is owed), ``receipts`` (it has ended with an answer) and
``dead_jobs`` (it was given up). The rows are written by ``arqonce/outbox.py``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, Interval, Text, bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DISPATCH_EPOCH, PromisedJob

BATCH = 500
"""Most jobs of one look: some 25 ms in PostgreSQL, and one pipeline to Redis."""

_FIRST_AGAIN, _LAST_AGAIN = timedelta(seconds=30), timedelta(minutes=10)
"""After how long a job that has not ended is given again: at first, and at most; twice as long each time."""


@dataclass(frozen=True)
class Promise:
    """A job that is owed, and is to be given to Redis now."""

    job_id: str
    job_name: str
    queue: str
    message: bytes
    request_hash: bytes
    due_at: datetime
    last_at: datetime
    """After this time it must not run any more: it could have taken effect so long ago that nobody remembers."""

    is_late: bool
    """Whether that time is over."""


_DISPATCH = text(f"""
    WITH waiting AS (
        SELECT job_id FROM arqonce.outbox WHERE queue = :queue AND give_at <= now()
        ORDER BY give_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED),
    forgotten AS (
        SELECT job_id FROM arqonce.outbox WHERE queue = :queue AND epoch < :epoch AND dispatched_at IS NOT NULL
        ORDER BY epoch LIMIT {BATCH} FOR UPDATE SKIP LOCKED),
    chosen AS (SELECT job_id FROM waiting UNION SELECT job_id FROM forgotten LIMIT {BATCH})
    UPDATE arqonce.outbox AS job SET
        epoch = :epoch,
        dispatched_at = now(),
        dispatches = CASE WHEN epoch < :epoch THEN 1 ELSE dispatches + 1 END,
        give_at = greatest(now(), due_at) + CASE WHEN epoch < :epoch THEN :first
            ELSE least(:first * power(2, least(dispatches, 16)), :last) END
    FROM chosen WHERE job.job_id = chosen.job_id
    RETURNING job.job_id, job.job_name, job.queue, job.message, job.request_hash, job.due_at,
        greatest(job.created_at, job.due_at) + :keep AS last_at,
        greatest(job.created_at, job.due_at) + :keep <= now() AS is_late
""").bindparams(  # noqa: S608 - the number is ours
    bindparam("queue", type_=Text),
    bindparam("epoch", type_=BigInteger),
    bindparam("keep", type_=Interval),
    bindparam("first", type_=Interval, value=_FIRST_AGAIN),
    bindparam("last", type_=Interval, value=_LAST_AGAIN),
)
"""Two looks, each along an index: what is to be given by now, and what was given to a Redis that has forgotten. Rows
that somebody else is giving are left out. A dispatch in a new epoch counts as the first."""


async def dispatch_batch(session: AsyncSession, *, queue: str, epoch: int, keep: timedelta) -> Sequence[Promise]:
    """Note that up to ``BATCH`` jobs of the queue are being given to Redis, and return them. One round trip.

    Commit before giving: a relay that dies in between delays them by 30 s, and loses nothing. The other way round its
    row locks would last as long as Redis takes, and a worker that is quicker would wait for them with its receipt.
    Any number at once: each row goes to one of them. ``keep`` is how long after its due time a job may run.
    """
    rows = await session.execute(text_for(session, _DISPATCH), {"queue": queue, "epoch": epoch, "keep": keep})
    return sorted((Promise(**row._mapping) for row in rows), key=lambda promise: promise.due_at)  # noqa: SLF001 - SQLAlchemy's public name


_TAKE_BACK = text("""
    UPDATE arqonce.outbox SET give_at = now(), dispatches = dispatches - 1
    WHERE job_id = ANY(:job_ids) AND dispatches > 0
""").bindparams(bindparam("job_ids", type_=ARRAY(Text)))


async def take_back(session: AsyncSession, job_ids: Collection[str]) -> None:
    """Note that the jobs could not be given after all: they are due again at once. One round trip."""
    await session.execute(text_for(session, _TAKE_BACK), {"job_ids": sorted(job_ids)})


async def next_epoch(session: AsyncSession) -> int:
    """Begin a new epoch: every job that was given before is due again. One round trip."""
    return await session.scalar(select(DISPATCH_EPOCH.next_value())) or 0


async def database_identity(session: AsyncSession) -> str:
    """Return a name that no other database has, standbys of this one excepted. One round trip."""
    query = text("SELECT system_identifier || '-' || oid FROM pg_control_system(), pg_database"
                 " WHERE datname = current_database()")  # fmt: skip
    return str(await session.scalar(query))


async def lock_promise(session: AsyncSession, job_id: str) -> PromisedJob | None:
    """Return the job's row until the end of the transaction, ``None`` if it is not owed. One round trip."""
    statement = select(PromisedJob).where(PromisedJob.job_id == job_id).with_for_update()
    return (await session.scalars(statement)).one_or_none()


async def delete_promise(session: AsyncSession, job_id: str) -> None:
    """Remove the job's row: it has ended, and another table says how. One round trip."""
    await session.execute(delete(PromisedJob).where(PromisedJob.job_id == job_id))
