"""Promises jobs inside the caller's own transaction: they are enqueued if, and only if, the transaction commits.

Loads no driver: the caller's connection has loaded it (``statements``). A relay writes the rows into Redis; it runs in
every worker, and alone as the command ``relay``.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from arqonce import statements
from arqonce.client.requests import Promised, at_once, in_turns
from arqonce.namespace import LEDGER, in_namespace
from arqonce.payloads import Payload
from arqonce.promises import Promises, promising
from arqonce.running import running_job
from arqonce.wire.keys import require_job_id
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)

_STATUS = f"""
SELECT CASE WHEN EXISTS (SELECT FROM arqonce.receipts WHERE job_id = :job_id) THEN '{JobStatus.COMPLETE}'
    WHEN EXISTS (SELECT FROM arqonce.outbox WHERE job_id = :job_id) THEN '{JobStatus.PROMISED}'
    WHEN EXISTS (SELECT FROM arqonce.dead_jobs WHERE job_id = :job_id) THEN '{JobStatus.FAILED}'
    ELSE '{JobStatus.NOT_FOUND}' END AS status
"""  # noqa: S608 - the words are ours
"""The status of a job, in the order of ``arqonce.ledger.where``. Producers may not read results, so ``COMPLETE`` does
not say how the job ended."""


async def enqueue_in(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of three libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    unique_for: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    queue: str | None = None,
    schema: str | None = None,
) -> Promised[ResultT]:
    """Promise a job in the connection's transaction: due now, after ``delay``, or ``at`` a datetime with a time zone.

    If the transaction rolls back, there is no job. If it commits, the job takes effect once, even if Redis is lost a
    moment later. Without an open transaction (autocommit of asyncpg or psycopg), the promise commits at once.

    ``connection`` is SQLAlchemy's ``AsyncSession`` or ``AsyncConnection``, asyncpg's connection or psycopg's
    ``AsyncConnection``, to the database that the workers use. One round trip. The role needs INSERT on the table
    outbox of the ledger's schema, and SELECT on it, receipts and dead_jobs.

    With a ``key`` (an idempotency key, which becomes the job's id) only the first promise inserts the job. ``is_new``
    is false for later ones while the job is in the outbox, has a receipt (WORKER_KEEP_RECEIPTS) or is dead. Two
    transactions that promise the same key wait for each other.

    ``unique_for`` and ``expires`` mean the same as in ``JobClient.enqueue``, but promises are remembered in PostgreSQL,
    until their transaction rolls back or the time is over. A promise and a job that a client enqueues directly do not
    see each other: no transaction spans both servers.

    Called with the session of a running job, it promises a follow-up. Without a key, the id is derived from that job's
    id, so that each attempt promises the same one; in a batch it is random, as elsewhere. ``queue`` is by default the
    queue from which the running job came, elsewhere ``arq:queue``. ``schema`` is the PostgreSQL schema of the workers'
    tables, their DATABASE_LEDGER_SCHEMA: by default that of the running job, elsewhere ``arqonce``.

    Raises:
        KeyConflictError: the key was used for another request. Nothing was promised; the transaction stays usable.
        InvalidMessageError: the payload, key, a time, the queue or the size is invalid; nothing was sent.
        ReadOnlyJobError: the running job is declared ``reads_only``; nothing was sent.
        TypeError: the connection is of another type.
        ValueError: the ledger's schema may not have that name.
    """
    (promised,) = await enqueue_many_in(
        connection, [payload], keys=[key], delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue,
        schema=schema,
    )  # fmt: skip
    return promised


def enqueue_in_sync(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of two libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    unique_for: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    queue: str | None = None,
    schema: str | None = None,
) -> Promised[ResultT]:
    """Promise a job as ``enqueue_in`` does, on a ``Session`` or ``Connection`` of SQLAlchemy, psycopg or Django."""
    (promised,) = enqueue_many_in_sync(
        connection, [payload], keys=[key], delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue,
        schema=schema,
    )  # fmt: skip
    return promised


async def enqueue_many_in(  # noqa: PLR0913 - the options of JobClient.enqueue_many, and where
    connection: Any,  # noqa: ANN401 - as for enqueue_in
    payloads: Iterable[Payload[ResultT]],
    *,
    keys: Sequence[str | None] | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    unique_for: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    queue: str | None = None,
    schema: str | None = None,
) -> list[Promised[ResultT]]:
    """Promise many jobs as ``enqueue_in`` promises each; return the promises in order.

    ``keys`` has one key for each job, or ``None`` for a job without. One round trip per 2,000 jobs, or per 8 MiB of
    messages, and one more if another transaction is inserting one of the keys. With ``unique_for`` one for each job.

    Raises:
        KeyConflictError: some keys were used for other requests; the text names the first. All others were promised:
            roll back, or call this in a savepoint.
        InvalidMessageError: a payload, key, time, queue or size is invalid; nothing was sent.
        ReadOnlyJobError, TypeError, ValueError: as for ``enqueue_in``.
    """
    run = statements.statement_runner(connection, is_async=True)
    parent = running_job(connection)
    with promising(queue, parent) as span, statements.cures_named():
        steps = Promises.steps(
            payloads, keys, delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue, schema=schema,
            parent=parent, sending=span,
        )  # fmt: skip
        promises = await in_turns(steps)
        for statement, parameters in promises.rounds():
            promises.note(await run(connection, statement, parameters))
        return promises.promised()


def enqueue_many_in_sync(  # noqa: PLR0913 - the options of JobClient.enqueue_many, and where
    connection: Any,  # noqa: ANN401 - as for enqueue_in_sync
    payloads: Iterable[Payload[ResultT]],
    *,
    keys: Sequence[str | None] | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    unique_for: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    queue: str | None = None,
    schema: str | None = None,
) -> list[Promised[ResultT]]:
    """Promise many jobs as ``enqueue_many_in`` does, on a connection that ``enqueue_in_sync`` supports."""
    run = statements.statement_runner(connection, is_async=False)
    parent = running_job(connection)
    with promising(queue, parent) as span, statements.cures_named():
        steps = Promises.steps(
            payloads, keys, delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue, schema=schema,
            parent=parent, sending=span,
        )  # fmt: skip
        promises = at_once(steps)
        for statement, parameters in promises.rounds():
            promises.note(run(connection, statement, parameters))
        return promises.promised()


async def status_in(
    connection: Any,  # noqa: ANN401 - as for enqueue_in
    job: str | Promised[Any],
    *,
    schema: str = LEDGER,
) -> JobStatus:
    """Return the status of a job in PostgreSQL, by its promise or its id.

    ``PROMISED``, ``COMPLETE`` (it has a receipt), ``FAILED`` (it is dead) or ``NOT_FOUND``.

    For services that report the status of a job to their own clients. ``JobHandle.status`` asks Redis instead, which
    holds a promised job from 10 s before it is due until its result expires. A job that was enqueued directly is found
    here once it has ended and has a receipt. One round trip; the role needs the SELECT rights of ``enqueue_in``.

    Raises:
        InvalidMessageError: the id is not valid.
        TypeError: ``enqueue_in`` does not support the connection.
        ValueError: the ledger's schema may not have that name.
    """
    run = statements.statement_runner(connection, is_async=True)
    with statements.cures_named():
        return JobStatus(await run(connection, in_namespace(_STATUS, schema), {"job_id": _id_of(job)}))


def status_in_sync(
    connection: Any,  # noqa: ANN401 - as for enqueue_in
    job: str | Promised[Any],
    *,
    schema: str = LEDGER,
) -> JobStatus:
    """Return the status of a job as ``status_in`` does, on a connection that ``enqueue_in_sync`` supports."""
    run = statements.statement_runner(connection, is_async=False)
    with statements.cures_named():
        return JobStatus(run(connection, in_namespace(_STATUS, schema), {"job_id": _id_of(job)}))


def _id_of(job: str | Promised[Any]) -> str:
    return require_job_id(job.job_id if isinstance(job, Promised) else job)
