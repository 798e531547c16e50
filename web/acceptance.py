"""Accepts jobs, through the queue or the outbox. Owns the meaning of a repeated Idempotency-Key.

A repeated key with the same request is accepted and adds nothing; with another request it is refused. The key is the
job's id, so the workers enforce this as well, for as long as receipts are kept.
"""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from arqonce import (
    AnyPayload,
    InvalidMessageError,
    JobHandle,
    JobTrace,
    KeyConflictError,
    Payload,
    Promised,
    QueueUnavailableError,
    decode,
    enqueue_in,
    trace_by_job_id,
)
from arqonce.database.faults import is_fault_of_server, why_not_written, why_unavailable
from arqonce.ledger.namespace import namespace_of
from arqonce.wire.keys import JOB_KEY, RESULT_KEY
from arqonce.wire.request import payload_tag, request_hash
from web.outages import OUTAGES, POSTGRESQL, REDIS
from web.problems import key_conflict
from web.reading import Terms, read_terms
from web.resources import RESOURCES
from web.sessions import read, session_of

ResultT = TypeVar("ResultT", bound=BaseModel)

_QUEUE_LIMIT = timedelta(seconds=5)
"""Longest wait for Redis to accept a job, or to return its state. After it, the job may or may not be queued (503)."""

_LOOK_LIMIT = timedelta(seconds=1)
"""Longest wait for PostgreSQL to check whether a key was used: the queue accepts jobs without it."""


async def accept(request: web.Request, payload: Payload[ResultT]) -> JobHandle[ResultT]:
    """Accept a job under the request's Idempotency-Key, if it has one. Two round trips, four with a key.

    Raises:
        ProblemError: 400 or 422 because of the key, 400 because of a time; 503 if the queue is too long.
        QueueUnavailableError: Redis did not accept the job in time.
    """
    resources, terms = request.app[RESOURCES], read_terms(request)
    key = terms.key
    if resources.settings.accept_through == "outbox":
        return await _promise(request, payload, terms)
    if key is not None and await _is_settled(request, payload, key):
        return resources.client.handle(Promised(key, is_new=False, result_type=payload.result_type()))
    try:
        async with asyncio.timeout(_QUEUE_LIMIT.total_seconds()):
            await resources.backlog.require_room()
            handle = await resources.client.enqueue(payload, **terms._asdict())
    except TimeoutError as error:
        raise QueueUnavailableError("Redis did not accept the job in time") from error
    request.app[OUTAGES].used(REDIS)
    if key is not None and not handle.is_new and not await _is_same_in_queue(request, payload, handle.job_id):
        raise key_conflict()
    return handle


async def _promise(request: web.Request, payload: Payload[ResultT], terms: Terms) -> JobHandle[ResultT]:
    session, resources = session_of(request), request.app[RESOURCES]
    queue, schema = resources.settings.queue, namespace_of(session)
    promise = partial(enqueue_in, session, payload, **terms._asdict(), queue=queue, schema=schema)
    try:
        async with session.begin():
            promised = await promise()
    except DBAPIError as error:
        if not is_fault_of_server(error):
            raise
        await session.close()  # the write was refused: another connection may lead to the primary
        async with session.begin():
            promised = await promise()
    request.app[OUTAGES].used(POSTGRESQL)
    return resources.client.handle(promised)


async def _is_settled(request: web.Request, payload: AnyPayload, key: str) -> bool:
    """Return whether the request has a receipt or an outbox row under this key.

    A dead job does not count: once its result has expired in Redis, a repeated request is a new try. If PostgreSQL is
    unavailable, returns ``False``; the workers then detect a conflict.
    """
    try:
        async with asyncio.timeout(_LOOK_LIMIT.total_seconds()):
            trace = await read(request, partial(trace_by_job_id, job_id=key))
    except (SQLAlchemyError, OSError) as error:
        reason = why_not_written(error) or why_unavailable(error)
        request.app[OUTAGES].note(POSTGRESQL, "cannot say whether a key was used", reason)
        return False
    return trace is not None and _is_same(trace, payload) and not trace.is_dead


def _is_same(trace: JobTrace, payload: AnyPayload) -> bool:
    if trace.is_dead and trace.request_hash is None:
        return False  # its message could not be read
    if (trace.job_name, trace.request_hash) != (payload.job_name, request_hash(payload)):
        raise KeyConflictError("the key was used for another request")
    return True


async def _is_same_in_queue(request: web.Request, payload: AnyPayload, job_id: str) -> bool:
    """Return whether the job with this id in Redis is the same request. At most two round trips."""
    redis = request.app[RESOURCES].redis
    try:
        async with asyncio.timeout(_QUEUE_LIMIT.total_seconds()):
            message, result = await redis.mget(JOB_KEY + job_id, RESULT_KEY + job_id)
    except (RedisError, OSError) as error:
        raise QueueUnavailableError("Redis did not return the job with this key in time") from error
    if message is not None:
        return _is_message_of(message, payload)
    trace = await read(request, partial(trace_by_job_id, job_id=job_id))
    if trace is not None:
        return _is_same(trace, payload)
    if result is None:
        return True
    # The job has ended and written nothing; a plain arq worker's result has no tag.
    tag, answer = payload_tag(payload), _read(result)
    return (answer.get("f"), answer.get("h", tag)) == (payload.job_name, tag)


def _is_message_of(data: bytes, payload: AnyPayload) -> bool:
    message = _read(data)
    if message.get("f") != payload.job_name:
        return False
    try:
        queued = type(payload).model_validate(message.get("k"))
    except ValidationError:
        return False
    return request_hash(queued) == request_hash(payload)


def _read(data: bytes) -> dict[str, Any]:
    try:
        return decode(data)
    except InvalidMessageError:
        return {}
