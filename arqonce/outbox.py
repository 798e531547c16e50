"""Promises a job inside the caller's own transaction: it is enqueued if, and only if, that commits.

Knows the table and the three ways to run a statement, and loads no driver: the caller's connection has done so. The
rows are given to Redis by a relay, which runs in every worker and, with the command ``relay``, alone.
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
from arqonce.failures import InvalidMessageError, KeyConflictError
from arqonce.namespace import LEDGER, in_namespace
from arqonce.payloads import AnyPayload, Payload
from arqonce.wire.codec import encode
from arqonce.wire.keys import (
    LATEST_MS,
    QUEUE,
    due_ms,
    job_message,
    new_job_id,
    now_ms,
    request_hash,
    require_job_id,
    require_payload,
)
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)
Parameters = Mapping[str, str | bytes]

_LONGEST_QUEUE = 200
"""Longest name of a queue, in characters: a notification of PostgreSQL holds 8,000 bytes."""

_TRIES = 3
"""How often the statement is sent if another transaction has promised the same key between its look and its insert."""

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
"""Answers ``new``, ``duplicate``, ``conflict`` or, if another transaction was quicker by a hair, nothing.

A job is given to Redis 10 s before it is due, so that it starts in time although a relay looks every 2 s, and so that
Redis does not hold what is due next month. The notification is sent at the commit, and only then. All commits that
notify wait for each other in PostgreSQL (at thousands a second; one transaction may promise many jobs)."""


_STATUS = f"""
SELECT CASE WHEN EXISTS (SELECT FROM arqonce.receipts WHERE job_id = :job_id) THEN '{JobStatus.COMPLETE}'
    WHEN EXISTS (SELECT FROM arqonce.outbox WHERE job_id = :job_id) THEN '{JobStatus.PROMISED}'
    WHEN EXISTS (SELECT FROM arqonce.dead_jobs WHERE job_id = :job_id) THEN '{JobStatus.FAILED}'
    ELSE '{JobStatus.NOT_FOUND}' END AS status
"""  # noqa: S608 - the words are ours
"""Where a job is, in the order of ``arqonce.ledger.where``. A producer may not read answers, so it is only complete."""


async def enqueue_in(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of three libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    queue: str = QUEUE,
    schema: str = LEDGER,
) -> Promised[ResultT]:
    """Promise a job in the connection's transaction, due now, after ``delay`` or ``at`` a time with a zone.

    Rolled back, there is no job. Committed, it takes effect once, even if Redis is lost a moment later. Where no
    transaction is open (asyncpg's and psycopg's autocommit), the promise is one of its own and counts at once.

    ``connection`` is SQLAlchemy's ``AsyncSession`` or ``AsyncConnection``, asyncpg's connection or psycopg's
    ``AsyncConnection``, to the database that the workers use. One round trip. The role needs INSERT on the table
    outbox of the ledger's schema, and SELECT on it, receipts and dead_jobs.

    With a ``key`` (an idempotency key: it becomes the job's id) only the first promise counts; ``is_new`` is false for
    all others, as long as the job is owed, is remembered (WORKER_KEEP_RECEIPTS) or is dead. Two transactions that
    promise the same key wait for each other.

    ``schema`` is where the workers' tables lie, if their DATABASE_LEDGER_SCHEMA names another PostgreSQL schema.

    Raises:
        KeyConflictError: the key was used for another request; nothing was promised, the transaction goes on.
        InvalidMessageError: key, time, queue or size is wrong; nothing was sent.
        TypeError: the connection is none of these.
        ValueError: the ledger's schema cannot have that name.
    """
    run = _statement_runner(connection, is_async=True)
    request = _Request.of(payload, key=key, delay=delay, at=at, queue=queue)
    with _cures_named():
        for _ in range(_TRIES):
            if outcome := await run(connection, in_namespace(_PROMISE, schema), request.parameters):
                return request.promised(outcome, payload)
    raise request.conflict()


def enqueue_in_sync(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of two libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    queue: str = QUEUE,
    schema: str = LEDGER,
) -> Promised[ResultT]:
    """Promise a job as ``enqueue_in`` does, for a ``Session`` or ``Connection``, of SQLAlchemy or psycopg."""
    run = _statement_runner(connection, is_async=False)
    request = _Request.of(payload, key=key, delay=delay, at=at, queue=queue)
    with _cures_named():
        for _ in range(_TRIES):
            if outcome := run(connection, in_namespace(_PROMISE, schema), request.parameters):
                return request.promised(outcome, payload)
    raise request.conflict()


async def status_in(
    connection: Any,  # noqa: ANN401 - as for enqueue_in
    job: str | Promised[Any],
    *,
    schema: str = LEDGER,
) -> JobStatus:
    """Say what PostgreSQL knows of a job, given the promise or an id.

    ``PROMISED``, ``COMPLETE`` (it has a receipt), ``FAILED`` (it is dead) or ``NOT_FOUND``.

    For a service that tells its own callers where their job is: ``JobHandle.status`` asks Redis, which has a promised
    job from 10 s before it is due until its result expires. A job that was enqueued directly is found here when it has
    ended and has a receipt. One round trip; the role needs the SELECT of ``enqueue_in``.

    Raises:
        InvalidMessageError: that cannot be a job's id.
        TypeError: the connection is none that ``enqueue_in`` takes.
        ValueError: the ledger's schema cannot have that name.
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
    """Say what PostgreSQL knows of a job, as ``status_in`` does, by a connection that ``enqueue_in_sync`` takes."""
    run = _statement_runner(connection, is_async=False)
    with _cures_named():
        return JobStatus(run(connection, in_namespace(_STATUS, schema), {"job_id": _id_of(job)}))


def _id_of(job: str | Promised[Any]) -> str:
    return require_job_id(job.job_id if isinstance(job, Promised) else job)


_CURES = {
    "42P01": "is this the database of the workers, and has it their tables? Run there the command migrate",
    "3F000": "is this the database of the workers, and has it their tables? Run there the command migrate",
    "42501": "let this role promise jobs: GRANT app_producer TO it (deploy/postgres/roles.sql)",
}
"""What to do about a state of PostgreSQL."""


@contextmanager
def _cures_named() -> Iterator[None]:
    """Add a note to the errors of any driver, whose types callers may know."""
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

    @classmethod
    def of(
        cls, payload: AnyPayload, *, key: str | None, delay: timedelta | None, at: datetime | None, queue: str
    ) -> "_Request":
        require_payload(payload)
        now = now_ms()
        due = due_ms(now, delay, at)
        if due > LATEST_MS:
            raise InvalidMessageError("the job is due after the year 9999")
        if not (queue.isprintable() and 1 <= len(queue) <= _LONGEST_QUEUE):
            raise InvalidMessageError(f"the queue's name must be 1 to {_LONGEST_QUEUE} printable characters")
        job_id = new_job_id(key)
        parameters: dict[str, str | bytes] = {
            "job_id": job_id,
            "job_name": payload.job_name,
            "queue": queue,
            "message": encode(job_message(payload, enqueued_ms=now)),
            "request_hash": request_hash(payload),
            "due_ms": str(due),  # as text: each driver has an idea of its own what a number is
        }
        return cls(job_id, parameters)

    def promised(self, outcome: str, payload: Payload[ResultT]) -> Promised[ResultT]:
        if outcome == "conflict":
            raise self.conflict()
        return Promised(self.job_id, outcome == "new", payload.result_type())

    def conflict(self) -> KeyConflictError:
        return KeyConflictError(
            f"the key {self.job_id!r} was used for another request: give each request its own key "
            "(or, if that one is dead, discard it: the command dead show)"
        )


def _statement_runner(connection: Any, *, is_async: bool) -> Any:  # noqa: ANN401 - a function, of three kinds
    classes = [f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__]
    # These have the modules of connections, but no transaction: a promise would outlive the caller's rollback.
    makers = {"asyncpg.pool.Pool", "sqlalchemy.engine.base.Engine", "sqlalchemy.ext.asyncio.engine.AsyncEngine",
              "sqlalchemy.orm.session.sessionmaker", "sqlalchemy.ext.asyncio.session.async_sessionmaker"}  # fmt: skip
    for prefix, run, run_sync in () if makers.intersection(classes) else _RUNNERS:
        if any(name.startswith(prefix) for name in classes) and (run if is_async else run_sync):
            return run if is_async else run_sync
    taken, other = _KINDS[is_async], "enqueue_in_sync" if is_async else "enqueue_in"
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(f"a job is promised on {taken}; this is a {kind}. For the other kind there is {other}")


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
    """Return psycopg's plain row factory: the connection's own may make anything of a row."""
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
"""How to run the statement, asynchronously or not, by how the name of the connection's class, or of a base, begins."""
