"""The route of jobs: combines the status of a job in Redis with that in PostgreSQL."""

import asyncio
import time
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from aiohttp import web
from pydantic import BaseModel
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from arqonce import InvalidMessageError, JobStatus, JobTrace, decode, trace_by_job_id
from arqonce.connection.redis import why_waiting
from arqonce.failures import failure_to_wire
from arqonce.wire.keys import IN_PROGRESS_KEY, RESULT_KEY, is_job_id, leases_key
from arqonce.wire.status import status_in_redis
from web.answers import json_answer
from web.outages import OUTAGES, REDIS
from web.problems import ProblemError, unavailable
from web.resources import RESOURCES, Resources
from web.sessions import read

_LOOK_LIMIT = timedelta(seconds=3)
"""Longest wait for Redis: PostgreSQL also knows most jobs."""


class Failure(BaseModel):
    """Why a job failed."""

    type: str
    message: str


class JobView(BaseModel):
    """The status of a job. A queued job waits for its due time, for a worker, or for its next attempt."""

    id: str
    status: Literal[JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.SUCCEEDED, JobStatus.FAILED]
    result: Any = None
    failure: Failure | None = None


async def show_job(request: web.Request) -> web.Response:
    """Return the job. One round trip to Redis, and one to PostgreSQL if Redis has no result."""
    job_id, resources = request.match_info["id"], request.app[RESOURCES]
    if not is_job_id(job_id):
        raise _no_such_job()
    try:
        async with asyncio.timeout(_LOOK_LIMIT.total_seconds()):
            seen, is_queue_gone = await _seen_by_redis(resources, job_id), False
    except (RedisError, OSError) as error:
        seen, is_queue_gone = None, True
        request.app[OUTAGES].note(REDIS, "cannot be asked for jobs", why_waiting(error))
    else:
        request.app[OUTAGES].used(REDIS)
    if seen is not None and seen.status.has_ended:
        return json_answer(seen)
    view = await _with_trace(request, job_id, seen)
    if view is None and is_queue_gone:
        raise unavailable("the queue cannot be reached, and the database does not know the job", "queue_unavailable")
    if view is None:
        raise _no_such_job()
    return json_answer(view)


def _no_such_job() -> ProblemError:
    return ProblemError(404, "there is no such job, or its result has expired", code="no_such_job")


async def _seen_by_redis(resources: Resources, job_id: str) -> JobView | None:
    queue = resources.settings.queue
    async with resources.redis.pipeline(transaction=True) as pipe:
        pipe.get(RESULT_KEY + job_id)
        pipe.zscore(queue, job_id)
        pipe.zscore(leases_key(queue), job_id)
        pipe.exists(IN_PROGRESS_KEY + job_id)
        result, score, leased_until, is_in_progress = await pipe.execute()
    if result is not None and (view := _read_result(job_id, result)):
        return view
    now = time.time() * 1000
    is_running = bool(is_in_progress) or (leased_until is not None and leased_until > now)
    match status_in_redis(is_success=None, is_running=is_running, score=score, now=now):
        case JobStatus.NOT_FOUND:
            return None
        case JobStatus.RUNNING:
            return JobView(id=job_id, status=JobStatus.RUNNING)
    return JobView(id=job_id, status=JobStatus.QUEUED)


def _read_result(job_id: str, data: bytes) -> JobView | None:
    try:
        message = decode(data)
    except InvalidMessageError:
        return None
    result = message.get("r")
    if isinstance(result, BaseException):
        return JobView(id=job_id, status=JobStatus.FAILED, failure=Failure(**failure_to_wire(result)))
    return JobView(id=job_id, status=JobStatus.SUCCEEDED, result=result)


async def _with_trace(request: web.Request, job_id: str, seen: JobView | None) -> JobView | None:
    try:
        trace = await read(request, partial(trace_by_job_id, job_id=job_id))
    except (SQLAlchemyError, OSError):
        if seen is None:
            raise
        return seen
    if trace is None or (seen is not None and (trace.is_dead or not trace.status.has_ended)):
        return seen
    return _view_of_trace(job_id, trace)


def _view_of_trace(job_id: str, trace: JobTrace) -> JobView:
    match trace.status:
        case JobStatus.FAILED:
            return JobView(id=job_id, status=JobStatus.FAILED, failure=Failure.model_validate(trace.failure))
        case JobStatus.SUCCEEDED:
            return JobView(id=job_id, status=JobStatus.SUCCEEDED, result=trace.result)
    return JobView(id=job_id, status=JobStatus.QUEUED)
