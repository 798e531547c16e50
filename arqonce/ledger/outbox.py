"""The outbox: jobs that were promised in a transaction and have not ended. Knows neither payloads nor Redis.

A promised job is in exactly one of the tables ``outbox`` (not ended), ``receipts`` (ended with a result or a refusal)
and ``dead_jobs`` (failed for good). ``arqonce/outbox.py`` inserts the rows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, Interval, Text, bindparam, delete, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DISPATCH_EPOCH, PromisedJob

BATCH = 500
"""Most jobs of one dispatch: some 25 ms in PostgreSQL, and one pipeline to Redis."""

_FIRST_AGAIN, _LAST_AGAIN = timedelta(seconds=30), timedelta(minutes=10)
"""After how long a job that has not ended is dispatched again: first and longest interval; it doubles each time."""


@dataclass(frozen=True)
class Promise:
    """A promised job that the relay is to write into Redis now."""

    job_id: str
    job_name: str
    queue: str
    message: bytes
    request_hash: bytes
    due_at: datetime
    last_at: datetime
    """The job must not run after this time: it may have taken effect, and its receipt may be deleted by then."""

    is_late: bool
    """Whether ``last_at`` has passed."""

    is_again: bool = False
    """Whether it was dispatched in an earlier epoch: Redis may have lost it."""


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
        greatest(job.created_at, job.due_at) + :keep <= now() AS is_late,
        job.job_id IN (SELECT job_id FROM forgotten) AS is_again
""").bindparams(  # noqa: S608 - the number is a constant
    bindparam("queue", type_=Text),
    bindparam("epoch", type_=BigInteger),
    bindparam("keep", type_=Interval),
    bindparam("first", type_=Interval, value=_FIRST_AGAIN),
    bindparam("last", type_=Interval, value=_LAST_AGAIN),
)
"""Two selections, each by an index: jobs that are due for dispatch, and jobs dispatched in an earlier epoch, which may
be lost. Skips rows that another relay is dispatching. A dispatch in a new epoch counts as the first."""


async def dispatch_batch(session: AsyncSession, *, queue: str, epoch: int, keep: timedelta) -> Sequence[Promise]:
    """Mark up to ``BATCH`` jobs of the queue as dispatched and return them. One round trip.

    Commit before writing them into Redis. A relay that dies in between delays the jobs by 30 s and loses none. If it
    committed afterwards, it would hold the row locks until Redis answers, and fast workers would wait for them with
    their receipts. Concurrent relays get different rows. ``keep`` is how long after its due time a job may run.
    """
    rows = await session.execute(text_for(session, _DISPATCH), {"queue": queue, "epoch": epoch, "keep": keep})
    return sorted((Promise(**row._mapping) for row in rows), key=lambda promise: promise.due_at)  # noqa: SLF001 - SQLAlchemy's public name


_TAKE_BACK = text("""
    UPDATE arqonce.outbox SET give_at = now(), dispatches = dispatches - 1
    WHERE job_id = ANY(:job_ids) AND dispatches > 0
""").bindparams(bindparam("job_ids", type_=ARRAY(Text)))


async def take_back(session: AsyncSession, job_ids: Collection[str]) -> None:
    """Make jobs that could not be written into Redis due again at once. One round trip."""
    await session.execute(text_for(session, _TAKE_BACK), {"job_ids": sorted(job_ids)})


async def next_epoch(session: AsyncSession) -> int:
    """Begin a new epoch, which makes every dispatched job due again; return its number. One round trip."""
    return await session.scalar(select(DISPATCH_EPOCH.next_value())) or 0


async def database_identity(session: AsyncSession) -> str:
    """Return a name unique to this database and its standbys. One round trip."""
    query = text("SELECT system_identifier || '-' || oid FROM pg_control_system(), pg_database"
                 " WHERE datname = current_database()")  # fmt: skip
    return str(await session.scalar(query))


async def lock_promise(session: AsyncSession, job_id: str) -> PromisedJob | None:
    """Return the job's outbox row, locked until the end of the transaction; ``None`` without one. One round trip."""
    statement = select(PromisedJob).where(PromisedJob.job_id == job_id).with_for_update()
    return (await session.scalars(statement)).one_or_none()


async def delete_promise(session: AsyncSession, job_id: str) -> None:
    """Delete the outbox row of a job whose end another table records. One round trip."""
    await session.execute(delete(PromisedJob).where(PromisedJob.job_id == job_id))
