"""The outbox: jobs that were promised in a transaction and have not ended. Knows neither payloads nor Redis.

A promised job is in exactly one of the tables ``outbox`` (not ended), ``receipts`` (ended with a result or a refusal)
and ``dead_jobs`` (failed for good). ``arqonce/outbox.py`` inserts the rows.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, BigInteger, Interval, Text, bindparam, delete, exists, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DISPATCH_EPOCH, PromisedJob

BATCH = 500
"""Most jobs of one queue in one dispatch: some 25 ms in PostgreSQL, and one pipeline to Redis."""

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
    WITH served AS (SELECT * FROM unnest(:queues, :epochs) AS served (queue, epoch)),
    waiting AS (
        SELECT found.*, served.epoch FROM served, LATERAL (
            SELECT job_id, queue, give_at, octet_length(message) AS size FROM arqonce.outbox
            WHERE queue = served.queue AND give_at <= now()
            ORDER BY give_at LIMIT {BATCH} FOR UPDATE SKIP LOCKED) AS found),
    forgotten AS (
        SELECT found.*, served.epoch FROM served, LATERAL (
            SELECT job_id, queue, give_at, octet_length(message) AS size FROM arqonce.outbox
            WHERE queue = served.queue AND epoch < served.epoch AND dispatched_at IS NOT NULL
            ORDER BY epoch LIMIT {BATCH} FOR UPDATE SKIP LOCKED) AS found),
    found AS (SELECT * FROM waiting UNION SELECT * FROM forgotten LIMIT :most),
    measured AS (
        SELECT *, sum(size) OVER (
            PARTITION BY queue ORDER BY give_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM found),
    chosen AS (SELECT * FROM measured WHERE before IS NULL OR before < :bytes)
    UPDATE arqonce.outbox AS job SET
        epoch = chosen.epoch,
        dispatched_at = now(),
        dispatches = CASE WHEN job.epoch < chosen.epoch THEN 1 ELSE dispatches + 1 END,
        give_at = greatest(now(), due_at) + CASE WHEN job.epoch < chosen.epoch THEN :first
            ELSE least(:first * power(2, least(dispatches, 16)), :last) END
    FROM chosen WHERE job.job_id = chosen.job_id
    RETURNING job.job_id, job.job_name, job.queue, job.message, job.request_hash, job.due_at,
        greatest(job.created_at, job.due_at) + :keep AS last_at,
        greatest(job.created_at, job.due_at) + :keep <= now() AS is_late,
        job.job_id IN (SELECT job_id FROM forgotten) AS is_again
""").bindparams(  # noqa: S608 - the number is a constant
    bindparam("queues", type_=ARRAY(Text)),
    bindparam("epochs", type_=ARRAY(BigInteger)),
    bindparam("most", type_=BigInteger),
    bindparam("bytes", type_=BigInteger),
    bindparam("keep", type_=Interval),
    bindparam("first", type_=Interval, value=_FIRST_AGAIN),
    bindparam("last", type_=Interval, value=_LAST_AGAIN),
)
"""Two selections from each queue, each by an index: jobs that are due for dispatch, and jobs dispatched in an earlier
epoch, which may be lost. Skips rows that another relay is dispatching. Of those found, each queue has the first one,
and others until their messages have so many bytes. The first dispatch in an epoch counts as 1."""


async def dispatch_batch(
    session: AsyncSession, *, epochs: Mapping[str, int], keep: timedelta, most_bytes: int
) -> Sequence[Promise]:
    """Mark jobs of these queues, up to ``BATCH`` of each, as dispatched in its epoch; return them. One round trip.

    There are fewer if their messages have about ``most_bytes``, of which each queue has the same share: ``is_full``
    says whether there may be more.

    Commit before writing them into Redis. A relay that dies in between delays the jobs by 30 s and loses none. If it
    committed afterwards, it would hold the row locks until Redis answers, and fast workers would wait for them with
    their receipts. Concurrent relays get different rows. ``keep`` is how long after its due time a job may run.
    """
    arrays = {"queues": list(epochs), "epochs": list(epochs.values())}
    bounds = {"keep": keep, "most": BATCH * len(epochs), "bytes": most_bytes // len(epochs)}
    rows = await session.execute(text_for(session, _DISPATCH), arrays | bounds)
    return sorted((Promise(**row._mapping) for row in rows), key=lambda promise: promise.due_at)  # noqa: SLF001 - SQLAlchemy's public name


def is_full(promises: Collection[Promise], epochs: Mapping[str, int], most_bytes: int) -> bool:
    """Return whether more jobs may be due than one dispatch has taken."""
    sizes = Counter[str]()
    for promise in promises:
        sizes[promise.queue] += len(promise.message)
    return len(promises) >= BATCH or any(size >= most_bytes // len(epochs) for size in sizes.values())


_TAKE_BACK = text("""
    UPDATE arqonce.outbox SET give_at = now(), dispatches = dispatches - 1
    WHERE job_id IN (SELECT job_id FROM arqonce.outbox WHERE job_id = ANY(:job_ids) FOR UPDATE SKIP LOCKED)
        AND dispatches > 0
""").bindparams(bindparam("job_ids", type_=ARRAY(Text)))


async def take_back(session: AsyncSession, job_ids: Collection[str]) -> None:
    """Make jobs that could not be written into Redis due again at once. One round trip.

    Skips what somebody else has locked: that job is about to end, or to be dispatched. A wait could be a deadlock.
    """
    await session.execute(text_for(session, _TAKE_BACK), {"job_ids": sorted(job_ids)})


MOST_BEHIND = 1_000
"""Queues that are looked for: producers choose their names, such as one for each of their customers."""

_BEHIND = text("""
    WITH RECURSIVE queues AS (
        (SELECT queue FROM arqonce.outbox ORDER BY queue LIMIT 1)
        UNION ALL SELECT (
            SELECT job.queue FROM arqonce.outbox AS job WHERE job.queue > queues.queue ORDER BY job.queue LIMIT 1)
        FROM queues WHERE queues.queue IS NOT NULL)
    SELECT queues.queue FROM queues, LATERAL (
        SELECT give_at FROM arqonce.outbox AS job WHERE job.queue = queues.queue ORDER BY give_at LIMIT 1) AS first
    WHERE first.give_at < now() - :behind LIMIT :most
""").bindparams(bindparam("behind", type_=Interval))
"""Skips from queue to queue in an index: a few pages for each, however many jobs it has."""


async def queues_behind(session: AsyncSession, behind: timedelta) -> Sequence[str]:
    """Return up to ``MOST_BEHIND`` queues in which a job is due for dispatch for so long: no relay serves them.

    One round trip.
    """
    return list(await session.scalars(text_for(session, _BEHIND), {"behind": behind, "most": MOST_BEHIND}))


async def is_owed(session: AsyncSession, queue: str, behind: timedelta) -> bool:
    """Return whether a job of the queue was dispatched, has been due for so long, and has not ended. One round trip."""
    is_late = (
        PromisedJob.queue == queue, PromisedJob.dispatched_at.is_not(None), PromisedJob.due_at < func.now() - behind
    )  # fmt: skip
    return bool(await session.scalar(select(exists().where(*is_late))))


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
