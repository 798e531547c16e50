"""Responds to accepted jobs: with the result if the client waits and it is ready in time, else with a link."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel

from arqonce import (
    JobAbortedError,
    JobExpiredError,
    JobFailedError,
    JobHandle,
    Payload,
    QueueUnavailableError,
    RequestConflictError,
    ResultMissingError,
    incoming_trace,
    trace_by_job_id,
)
from arqonce.failures import failure_from_wire
from jobs.payloads import EmailTakenError
from web.acceptance import accept
from web.problems import ProblemError, key_conflict
from web.reading import read_wait
from web.resources import RESOURCES
from web.sessions import read

ResultT = TypeVar("ResultT", bound=BaseModel)


class AcceptedJob(BaseModel):
    """A job that was accepted."""

    job_id: str


def json_answer(model: BaseModel, *, status: int = 200) -> web.Response:
    """Return a response with the model as JSON."""
    return web.Response(status=status, body=model.model_dump_json().encode(), content_type="application/json")


async def accept_and_answer(
    request: web.Request, payload: Payload[ResultT], done: Callable[[ResultT], web.Response]
) -> web.Response:
    """Accept the job. Return 202 with its id, or ``done(result)`` if the client prefers to wait and it ends in time.

    Raises:
        ProblemError: the job was refused, or failed while the client waited.
    """
    with incoming_trace(request.headers):
        handle = await accept(request, payload)
    wait = read_wait(request, longest=request.app[RESOURCES].settings.max_wait)
    if not wait:
        return _accepted(handle.job_id)
    result = await _result_in_time(request, handle, payload.result_type(), wait)
    response = _accepted(handle.job_id) if result is None else done(result)
    response.headers["Preference-Applied"] = f"wait={wait.total_seconds():.0f}"
    return response


def _accepted(job_id: str) -> web.Response:
    response = json_answer(AcceptedJob(job_id=job_id), status=202)
    response.headers["Location"] = f"/jobs/{quote(job_id, safe='')}"
    return response


async def _result_in_time(
    request: web.Request, handle: JobHandle[ResultT], kind: type[ResultT], wait: timedelta
) -> ResultT | None:
    try:
        if not handle.is_new and (result := await _remembered(request, handle.job_id)):
            return kind.model_validate(result)
        return await _unless_stopping(request.app[RESOURCES].stopping, handle.result(timeout=wait))
    except JobFailedError as error:
        raise problem_of_failure(error) from error
    except ResultMissingError:
        # Redis has lost the job or its result: PostgreSQL may have the receipt.
        result = await _remembered(request, handle.job_id)
        return None if result is None else kind.model_validate(result)
    except (TimeoutError, QueueUnavailableError):
        return None


async def _remembered(request: web.Request, job_id: str) -> dict[str, Any] | None:
    trace = await read(request, partial(trace_by_job_id, job_id=job_id))
    if trace is None or trace.is_dead:
        return None  # a dead job may have been retried
    if trace.failure is not None:
        raise problem_of_failure(failure_from_wire(trace.failure))
    return trace.result


def problem_of_failure(error: JobFailedError) -> ProblemError:
    """Return the problem of a failed job: 409 for a refusal, an abort or an expired job, 500 for all other failures."""
    match error:
        case RequestConflictError():
            return key_conflict()
        case EmailTakenError():
            return ProblemError(409, "another user has this e-mail: GET /users?email= finds that user", code=error.code)
        case JobAbortedError() | JobExpiredError():
            return ProblemError(409, error.message, code=error.code)
    return ProblemError(500, "the job was accepted and has failed", code=error.code)


async def _unless_stopping(stopping: asyncio.Event, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Wait for the work, or until the service has to stop.

    Raises:
        TimeoutError: the service has to stop.
    """
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        task.cancel()
        stop.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)
