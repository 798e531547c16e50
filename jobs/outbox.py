"""Promises a job inside the caller's own transaction: it is enqueued if, and only if, that commits.

Knows the table and the three ways to run a statement, and loads no driver: the caller's connection has done so. The
rows are given to Redis by a relay, which runs in every worker and, with ``users-worker relay``, alone.
"""

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from jobs.client import Enqueued
from jobs.codec import encode
from jobs.failures import InvalidMessageError, KeyConflictError
from jobs.payloads import AnyPayload, Payload
from jobs.wire import LATEST_MS, QUEUE, due_ms, job_message, new_job_id, now_ms, request_hash, require_payload

ResultT = TypeVar("ResultT", bound=BaseModel)

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
    SELECT job_name, request_hash FROM job_receipts WHERE job_id = (SELECT job_id FROM request)
    UNION ALL SELECT job_name, request_hash FROM dead_jobs AS dead WHERE job_id = (SELECT job_id FROM request)
        AND NOT EXISTS (SELECT FROM job_receipts WHERE job_receipts.job_id = dead.job_id)),
promised AS (
    INSERT INTO job_outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
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
    UNION ALL SELECT job_name, request_hash FROM job_outbox WHERE job_id = (SELECT job_id FROM request)) AS known
ORDER BY outcome LIMIT 1
"""
"""Answers ``new``, ``duplicate``, ``conflict`` or, if another transaction was quicker by a hair, nothing.

A job is given to Redis 10 s before it is due, so that it starts in time although a relay looks every 2 s, and so that
Redis does not hold what is due next month. The notification is sent at the commit, and only then. All commits that
notify wait for each other in PostgreSQL (at thousands a second; one transaction may promise many jobs)."""


@dataclass(frozen=True)
class Promised(Generic[ResultT]):
    """A job that is enqueued when the transaction commits; ``JobClient.handle`` makes it one to wait for."""

    job_id: str
    outcome: Enqueued
    result_type: type[ResultT] = field(repr=False)


async def enqueue_in(  # noqa: PLR0913 - the options of JobClient.enqueue, and where
    connection: Any,  # noqa: ANN401 - of one of three libraries, none of which is imported here
    payload: Payload[ResultT],
    *,
    key: str | None = None,
    delay: timedelta | None = None,
    at: datetime | None = None,
    queue: str = QUEUE,
) -> Promised[ResultT]:
    """Promise a job in the connection's transaction, due now, after ``delay`` or ``at`` a time with a zone.

    Rolled back, there is no job. Committed, it takes effect once, even if Redis is lost a moment later. Where no
    transaction is open (asyncpg's and psycopg's autocommit), the promise is one of its own and counts at once.

    ``connection`` is SQLAlchemy's ``AsyncSession`` or ``AsyncConnection``, asyncpg's connection or psycopg's
    ``AsyncConnection``, to the database that the workers use. One round trip. The role needs INSERT on job_outbox, and
    SELECT on it, job_receipts and dead_jobs.

    With a ``key`` (an idempotency key: it becomes the job's id) only the first promise counts; the outcome of all
    others is ``DUPLICATE``, for as long as the job is owed, is remembered (WORKER_KEEP_RECEIPTS) or is dead. Two
    transactions that promise the same key wait for each other.

    Raises:
        KeyConflictError: the key was used for another request; nothing was promised, the transaction goes on.
        InvalidMessageError: key, time, queue or size is wrong; nothing was sent.
        TypeError: the connection is none of these.
    """
    run = _statement_runner(connection, is_async=True)
    request = _Request.of(payload, key=key, delay=delay, at=at, queue=queue)
    for _ in range(_TRIES):
        if outcome := await run(connection, request.parameters):
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
) -> Promised[ResultT]:
    """Promise a job as ``enqueue_in`` does, for a ``Session`` or ``Connection``, of SQLAlchemy or psycopg."""
    run = _statement_runner(connection, is_async=False)
    request = _Request.of(payload, key=key, delay=delay, at=at, queue=queue)
    for _ in range(_TRIES):
        if outcome := run(connection, request.parameters):
            return request.promised(outcome, payload)
    raise request.conflict()


@dataclass(frozen=True)
class _Request:
    job_id: str
    parameters: Mapping[str, str | bytes]

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
        return Promised(self.job_id, Enqueued(outcome), payload.result_type())

    def conflict(self) -> KeyConflictError:
        return KeyConflictError(
            f"the key {self.job_id!r} was used for another request: give each request its own key "
            "(or, if that one is dead, discard it: users-worker dead show)"
        )


def _statement_runner(connection: Any, *, is_async: bool) -> Any:  # noqa: ANN401 - a function, of three kinds
    classes = [f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__]
    # These have the modules of connections, but no transaction: a promise would outlive the caller's rollback.
    makers = {"asyncpg.pool.Pool", "sqlalchemy.engine.base.Engine", "sqlalchemy.ext.asyncio.engine.AsyncEngine",
              "sqlalchemy.orm.session.sessionmaker", "sqlalchemy.ext.asyncio.session.async_sessionmaker"}  # fmt: skip
    for prefix, run, run_sync in () if makers.intersection(classes) else _RUNNERS:
        if any(name.startswith(prefix) for name in classes) and (run if is_async else run_sync):
            return run if is_async else run_sync
    name, right, other = type(connection).__name__, *_KINDS[:: 1 if is_async else -1]
    raise TypeError(f"cannot promise a job with a {name}: give it {right} (and {other} to the other function)")


_KINDS = (
    "enqueue_in an AsyncSession, AsyncConnection, asyncpg connection or psycopg AsyncConnection",
    "enqueue_in_sync a Session, Connection or psycopg Connection",
)


async def _run_sqlalchemy(connection: Any, parameters: Mapping[str, str | bytes]) -> str | None:  # noqa: ANN401 - see enqueue_in
    statement = importlib.import_module("sqlalchemy").text(_PROMISE)
    return _first((await connection.execute(statement, parameters)).first())


def _run_sqlalchemy_sync(connection: Any, parameters: Mapping[str, str | bytes]) -> str | None:  # noqa: ANN401 - see enqueue_in
    statement = importlib.import_module("sqlalchemy").text(_PROMISE)
    return _first(connection.execute(statement, parameters).first())


async def _run_asyncpg(connection: Any, parameters: Mapping[str, str | bytes]) -> str | None:  # noqa: ANN401 - see enqueue_in
    numbers = {name: number for number, name in enumerate(parameters, start=1)}
    statement = _NAME.sub(lambda match: f"${numbers[match[1]]}", _PROMISE)
    return _first(await connection.fetchrow(statement, *parameters.values()))


async def _run_psycopg(connection: Any, parameters: Mapping[str, str | bytes]) -> str | None:  # noqa: ANN401 - see enqueue_in
    async with connection.cursor(row_factory=_tuples()) as cursor:
        await cursor.execute(_NAME.sub(r"%(\1)s", _PROMISE), parameters)
        return _first(await cursor.fetchone())


def _run_psycopg_sync(connection: Any, parameters: Mapping[str, str | bytes]) -> str | None:  # noqa: ANN401 - see enqueue_in
    with connection.cursor(row_factory=_tuples()) as cursor:
        cursor.execute(_NAME.sub(r"%(\1)s", _PROMISE), parameters)
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
