"""Promises a job inside the caller's own transaction: the job is enqueued if, and only if, the transaction commits.

Knows the outbox table and how to run a statement with three libraries. Loads no driver: the caller's connection has
loaded it. A relay writes the rows into Redis; it runs in every worker, and alone as the command ``relay``.
"""

import importlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel

from arqonce.client.requests import Promised
from arqonce.failures import KeyConflictError
from arqonce.namespace import LEDGER, in_namespace
from arqonce.payloads import AnyPayload, Payload
from arqonce.wire.bounds import require_queue
from arqonce.wire.keys import QUEUE, new_job_id, now_ms, require_job_id
from arqonce.wire.request import request_hash, require_payload, unique_name, write_job
from arqonce.wire.status import JobStatus
from arqonce.wire.times import due_ms, expiry_ms, window_ms

ResultT = TypeVar("ResultT", bound=BaseModel)
Parameters = Mapping[str, str | bytes]

_TRIES = 3
"""Most times the statement is sent if another transaction inserts the same key between its SELECT and its INSERT."""

_PROMISE = """
WITH request AS (
    SELECT CAST(:job_id AS text) AS job_id, CAST(:job_name AS text) AS job_name, CAST(:queue AS text) AS queue,
        CAST(:message AS bytea) AS message, CAST(:request_hash AS bytea) AS request_hash,
        to_timestamp(CAST(CAST(:due_ms AS text) AS bigint) / 1000.0) AS due_at),
ended AS (
    SELECT job_name, request_hash FROM arqonce.receipts WHERE job_id = (SELECT job_id FROM request)
    UNION ALL SELECT job_name, request_hash FROM arqonce.dead_jobs AS dead WHERE job_id = (SELECT job_id FROM request)
        AND NOT EXISTS (SELECT FROM arqonce.receipts WHERE receipts.job_id = dead.job_id)),
promised AS (
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, queue, message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request WHERE NOT EXISTS (SELECT FROM ended)
    ON CONFLICT (job_id) DO NOTHING
    RETURNING queue, give_at)
SELECT 'new' AS outcome,
    CASE WHEN give_at <= clock_timestamp() THEN CAST(pg_notify('job_outbox', queue) AS text) END AS woken
FROM promised
UNION ALL
SELECT CASE WHEN known.job_name = request.job_name AND known.request_hash = request.request_hash
    THEN 'duplicate' ELSE 'conflict' END, NULL
FROM request, (
    SELECT job_name, request_hash FROM ended
    UNION ALL SELECT job_name, request_hash FROM arqonce.outbox WHERE job_id = (SELECT job_id FROM request)) AS known
ORDER BY outcome LIMIT 1
"""
"""Returns ``new``, ``duplicate`` or ``conflict``; no row if another transaction inserted the key concurrently.

A job is written into Redis 10 s before it is due: it starts on time although a relay polls every 2 s, and Redis does
not hold jobs that are due next month. PostgreSQL sends the notification at the commit. It serializes all commits that
notify (thousands a second; one transaction may promise many jobs)."""

_PROMISE_UNIQUE = """
WITH request AS (
    SELECT CAST(:job_id AS text) AS job_id, CAST(:job_name AS text) AS job_name, CAST(:queue AS text) AS queue,
        CAST(:message AS bytea) AS message, CAST(:request_hash AS bytea) AS request_hash,
        to_timestamp(CAST(CAST(:due_ms AS text) AS bigint) / 1000.0) AS due_at,
        CAST(:unique_name AS bytea) AS unique_name,
        clock_timestamp() + CAST(CAST(:window_ms AS text) AS bigint) * interval '1 ms' AS unique_until),
first AS (
    INSERT INTO arqonce.unique_requests AS earlier (name, job_id, until)
    SELECT unique_name, job_id, unique_until FROM request
    ON CONFLICT (name) DO UPDATE SET job_id = excluded.job_id, until = excluded.until
        WHERE earlier.until <= clock_timestamp()
    RETURNING job_id),
promised AS (
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
    SELECT job_id, job_name, queue, message, request_hash, due_at, due_at - interval '10 seconds'
    FROM request WHERE EXISTS (SELECT FROM first)
    RETURNING job_id, queue, give_at)
SELECT job_id,
    CASE WHEN give_at <= clock_timestamp() THEN CAST(pg_notify('job_outbox', queue) AS text) END AS woken
FROM promised
UNION ALL
SELECT earlier.job_id, NULL FROM arqonce.unique_requests AS earlier, request
WHERE earlier.name = request.unique_name AND earlier.until > clock_timestamp() AND NOT EXISTS (SELECT FROM first)
"""
"""Returns the id of the request's job, which is ours if the request is new; no row if another transaction promised an
equal request concurrently. Two transactions that promise equal requests wait for each other."""


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
    queue: str = QUEUE,
    schema: str = LEDGER,
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

    ``schema`` is the PostgreSQL schema of the workers' tables: their DATABASE_LEDGER_SCHEMA, if that is set.

    Raises:
        KeyConflictError: the key was used for another request. Nothing was promised; the transaction stays usable.
        InvalidMessageError: the payload, key, a time, the queue or the size is invalid; nothing was sent.
        TypeError: the connection is of another type.
        ValueError: the ledger's schema may not have that name.
    """
    run = _statement_runner(connection, is_async=True)
    request = _Request.of(payload, key=key, delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue)
    with _cures_named():
        for _ in range(_TRIES):
            if outcome := await run(connection, in_namespace(request.statement, schema), request.parameters):
                return request.promised(outcome, payload)
    raise request.conflict()


def enqueue_in_sync(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of two libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    unique_for: timedelta | None = None,
    expires: timedelta | datetime | None = None,
    queue: str = QUEUE,
    schema: str = LEDGER,
) -> Promised[ResultT]:
    """Promise a job as ``enqueue_in`` does, on a ``Session`` or ``Connection`` of SQLAlchemy or psycopg."""
    run = _statement_runner(connection, is_async=False)
    request = _Request.of(payload, key=key, delay=delay, at=at, unique_for=unique_for, expires=expires, queue=queue)
    with _cures_named():
        for _ in range(_TRIES):
            if outcome := run(connection, in_namespace(request.statement, schema), request.parameters):
                return request.promised(outcome, payload)
    raise request.conflict()


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
    run = _statement_runner(connection, is_async=True)
    with _cures_named():
        return JobStatus(await run(connection, in_namespace(_STATUS, schema), {"job_id": _id_of(job)}))


def status_in_sync(
    connection: Any,  # noqa: ANN401 - as for enqueue_in
    job: str | Promised[Any],
    *,
    schema: str = LEDGER,
) -> JobStatus:
    """Return the status of a job as ``status_in`` does, on a connection that ``enqueue_in_sync`` supports."""
    run = _statement_runner(connection, is_async=False)
    with _cures_named():
        return JobStatus(run(connection, in_namespace(_STATUS, schema), {"job_id": _id_of(job)}))


def _id_of(job: str | Promised[Any]) -> str:
    return require_job_id(job.job_id if isinstance(job, Promised) else job)


_CURES = {
    "42P01": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "3F000": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "42501": "let this role promise jobs: GRANT app_producer TO it (deploy/postgres/roles.sql)",
}
"""The cure for an error, by its SQLSTATE."""


@contextmanager
def _cures_named() -> Iterator[None]:
    """Add the cure as a note to a driver's error. Its type stays the same: callers may catch it."""
    try:
        yield
    except Exception as error:
        for known in (error, getattr(error, "orig", None), error.__cause__):
            if cure := _CURES.get(getattr(known, "sqlstate", None) or ""):
                error.add_note(cure)
                break
        raise


@dataclass(frozen=True)
class _Request:
    job_id: str
    parameters: Parameters
    statement: str = _PROMISE

    @classmethod
    def of(  # noqa: PLR0913 - the options of enqueue_in
        cls,
        payload: AnyPayload,
        *,
        key: str | None,
        delay: timedelta | None,
        at: datetime | None,
        unique_for: timedelta | None,
        expires: timedelta | datetime | None,
        queue: str,
    ) -> "_Request":
        require_payload(payload)
        now = now_ms()
        due = due_ms(now, delay, at)
        expiry = expiry_ms(now, due, expires)
        window = window_ms(now, unique_for, has_key=key is not None)
        job_id = new_job_id(key)
        parameters: dict[str, str | bytes] = {
            "job_id": job_id,
            "job_name": payload.job_name,
            "queue": require_queue(queue),
            "message": write_job(payload, enqueued_ms=now, expires_ms=expiry),
            "request_hash": request_hash(payload),
            "due_ms": str(due),  # as text: drivers differ in how they type numbers
        }
        if window is None:
            return cls(job_id, parameters)
        unique: dict[str, str | bytes] = {"unique_name": unique_name(payload, queue), "window_ms": str(window)}
        return cls(job_id, parameters | unique, _PROMISE_UNIQUE)

    def promised(self, outcome: str, payload: Payload[ResultT]) -> Promised[ResultT]:
        if outcome == "conflict":
            raise self.conflict()
        if self.statement is _PROMISE_UNIQUE:
            return Promised(outcome, outcome == self.job_id, payload.result_type())
        return Promised(self.job_id, outcome == "new", payload.result_type())

    def conflict(self) -> KeyConflictError:
        return KeyConflictError(
            f"the key {self.job_id!r} was used for another request: give each request its own key "
            "(or, if the earlier job is dead, discard it: see the command dead show)"
        )


def _statement_runner(connection: Any, *, is_async: bool) -> Any:  # noqa: ANN401 - one of three types of function
    classes = [f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__]
    # Same modules as connections, but no transaction: a promise would survive the caller's rollback.
    makers = {"asyncpg.pool.Pool", "sqlalchemy.engine.base.Engine", "sqlalchemy.ext.asyncio.engine.AsyncEngine",
              "sqlalchemy.orm.session.sessionmaker", "sqlalchemy.ext.asyncio.session.async_sessionmaker"}  # fmt: skip
    for prefix, run, run_sync in () if makers.intersection(classes) else _RUNNERS:
        if any(name.startswith(prefix) for name in classes) and (run if is_async else run_sync):
            return run if is_async else run_sync
    taken, other = _KINDS[is_async], "enqueue_in_sync" if is_async else "enqueue_in"
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(f"the connection must be {taken}; this is a {kind}. For the other kind use {other}")


_KINDS = {
    True: "SQLAlchemy's AsyncSession or AsyncConnection, asyncpg's connection or psycopg's AsyncConnection",
    False: "SQLAlchemy's Session or Connection, or psycopg's Connection (in Django connection.connection, in atomic())",
}


async def _run_sqlalchemy(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first((await connection.execute(text, parameters)).first())


def _run_sqlalchemy_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first(connection.execute(text, parameters).first())


async def _run_asyncpg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    numbers = {name: number for number, name in enumerate(parameters, start=1)}
    numbered = _NAME.sub(lambda match: f"${numbers[match[1]]}", statement)
    return _first(await connection.fetchrow(numbered, *parameters.values()))


async def _run_psycopg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    async with connection.cursor(row_factory=_tuples()) as cursor:
        await cursor.execute(_NAME.sub(r"%(\1)s", statement), parameters)
        return _first(await cursor.fetchone())


def _run_psycopg_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    with connection.cursor(row_factory=_tuples()) as cursor:
        cursor.execute(_NAME.sub(r"%(\1)s", statement), parameters)
        return _first(cursor.fetchone())


def _tuples() -> Any:  # noqa: ANN401 - psycopg's
    """Return psycopg's tuple row factory: the connection's own may return rows of any type."""
    return importlib.import_module("psycopg.rows").tuple_row


def _first(row: Any) -> str | None:  # noqa: ANN401 - a row of any library
    return None if row is None else str(row[0])


_NAME = re.compile(r":([a-z_]+)")

_RUNNERS: tuple[tuple[str, Any, Any], ...] = (
    ("sqlalchemy.ext.asyncio.", _run_sqlalchemy, None),
    ("sqlalchemy.orm.", None, _run_sqlalchemy_sync),
    ("sqlalchemy.engine.", None, _run_sqlalchemy_sync),
    ("asyncpg.", _run_asyncpg, None),
    ("psycopg.AsyncConnection", _run_psycopg, None),
    ("psycopg.Connection", None, _run_psycopg_sync),
)
"""Functions that run the statement, async and sync, by a prefix of the name of the connection's class or of a base."""
