"""Puts a recorder in the place of Redis: in both clients, also those that are open, and behind the outbox.

What a client checks and encodes it still does; a promise is still written in the caller's transaction.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest
from pydantic import BaseModel

from jobs import outbox
from jobs.client import JobClient, JobHandle
from jobs.codec import decode
from jobs.connection import build_redis
from jobs.messages import Enqueued, Request
from jobs.payloads import Payload
from jobs.results import JobInfo
from jobs.sync_client import SyncJobClient, SyncJobHandle
from jobs.testing.enqueued import EnqueuedJobs, RecordedJob
from jobs.testing.rollbacks import when_rolled_back

ResultT = TypeVar("ResultT", bound=BaseModel)
HandleT = TypeVar("HandleT")
Parameters = Mapping[str, Any]


def stand_in_for_redis(jobs: EnqueuedJobs, patch: pytest.MonkeyPatch) -> None:
    """Record in ``jobs`` what this process enqueues, for as long as the patch lasts."""
    _replace_client(jobs, patch)
    _replace_sync_client(jobs, patch)
    runner = outbox._statement_runner  # noqa: SLF001 - through which each promise goes
    patch.setattr(outbox, "_statement_runner", _recording(jobs, runner))


def _replace_client(jobs: EnqueuedJobs, patch: pytest.MonkeyPatch) -> None:
    async def enqueue(
        client: JobClient,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> JobHandle[ResultT]:
        return _take(jobs, client, Request.of([payload], [key], delay=delay, at=at), JobHandle)[0]

    async def enqueue_many(
        client: JobClient, payloads: Iterable[Payload[ResultT]], *, keys: Sequence[str] | None = None
    ) -> list[JobHandle[ResultT]]:
        return _take(jobs, client, Request.of(list(payloads), keys), JobHandle)

    async def wait(_client: JobClient, job_id: str, *_: object, **_is_promised: object) -> bytes:
        return jobs.answer(job_id)

    async def info(_client: JobClient, job_id: str) -> JobInfo:
        return jobs.info(job_id)

    async def ask_to_abort(_client: JobClient, job_id: str, **_is_promised: object) -> None:
        jobs.abort(job_id)

    def build_without_server(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - the original's
        redis = build_redis(*arguments, **options)  # connects to nothing
        vars(redis)["ping"] = _pong
        return redis

    patch.setattr("jobs.client.build_redis", build_without_server)
    patch.setattr(JobClient, "enqueue", enqueue)
    patch.setattr(JobClient, "enqueue_many", enqueue_many)
    patch.setattr(JobClient, "_wait", wait)
    patch.setattr(JobClient, "_info", info)
    patch.setattr(JobClient, "_ask_to_abort", ask_to_abort)


async def _pong() -> bool:
    return True


def _replace_sync_client(jobs: EnqueuedJobs, patch: pytest.MonkeyPatch) -> None:
    def enqueue(
        client: SyncJobClient,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> SyncJobHandle[ResultT]:
        return _take(jobs, client, Request.of([payload], [key], delay=delay, at=at), SyncJobHandle)[0]

    def enqueue_many(
        client: SyncJobClient, payloads: Iterable[Payload[ResultT]], *, keys: Sequence[str] | None = None
    ) -> list[SyncJobHandle[ResultT]]:
        return _take(jobs, client, Request.of(list(payloads), keys), SyncJobHandle)

    patch.setattr(SyncJobClient, "ping", lambda _client: None)
    patch.setattr(SyncJobClient, "enqueue", enqueue)
    patch.setattr(SyncJobClient, "enqueue_many", enqueue_many)
    patch.setattr(SyncJobClient, "_wait", lambda _client, job_id, *_, **__: jobs.answer(job_id))
    patch.setattr(SyncJobClient, "_info", lambda _client, job_id: jobs.info(job_id))
    patch.setattr(SyncJobClient, "_ask_to_abort", lambda _client, job_id, **_: jobs.abort(job_id))


def _take(
    jobs: EnqueuedJobs, client: JobClient | SyncJobClient, request: Request[Any], handle: Callable[..., HandleT]
) -> list[HandleT]:
    due, queue = _time(request.due_ms), client._queue  # noqa: SLF001 - as the client itself would
    added = [
        int(jobs.record(RecordedJob(job_id, decode(message)["f"], message, due, queue)))
        for job_id, message in zip(request.ids, request.messages, strict=True)
    ]
    return [handle(job_id, outcome, client, kind, _tag=tag) for job_id, outcome, kind, tag in request.outcomes(added)]


def _time(due_ms: int) -> datetime:
    return datetime.fromtimestamp(due_ms / 1000, UTC)


def _recording(jobs: EnqueuedJobs, find_runner: Callable[..., Callable[..., object]]) -> Callable[..., object]:
    """Return what finds the way to execute a promise, made to record each promise that is new."""

    def find_recording_runner(connection: object, *, is_async: bool) -> object:
        run = find_runner(connection, is_async=is_async)

        def run_and_record(connection: object, statement: str, parameters: Parameters) -> object:
            outcome = run(connection, statement, parameters)
            if "message" not in parameters:
                return outcome  # a look at what is promised
            if inspect.isawaitable(outcome):
                return _await_and_record(jobs, outcome, connection, parameters)
            _record(jobs, outcome, connection, parameters)
            return outcome

        return run_and_record

    return find_recording_runner


async def _await_and_record(
    jobs: EnqueuedJobs, outcome: Awaitable[object], connection: object, parameters: Parameters
) -> object:
    awaited = await outcome
    _record(jobs, awaited, connection, parameters)
    return awaited


def _record(jobs: EnqueuedJobs, outcome: object, connection: object, parameters: Parameters) -> None:
    if outcome != Enqueued.NEW.value:
        return
    job_id, due = parameters["job_id"], _time(int(parameters["due_ms"]))
    name, message, queue = parameters["job_name"], parameters["message"], parameters["queue"]
    jobs.record(RecordedJob(job_id, name, message, due, queue, is_promised=True))
    when_rolled_back(connection, lambda: jobs.forget(job_id))
