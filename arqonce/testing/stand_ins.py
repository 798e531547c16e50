"""Replaces Redis by a recorder, for both clients, including open ones, and for the outbox.

Replaces only what communicates with a server; keys, codec, handles and failures are the clients' own.
"""

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from arqonce import statements
from arqonce.client.answers import JobInfo, missing, read_info, require_open
from arqonce.client.client import JobClient
from arqonce.client.requests import Call
from arqonce.client.sync_client import SyncJobClient
from arqonce.testing.enqueued import EnqueuedJobs
from arqonce.testing.recorded import RecordedJob
from arqonce.testing.rollbacks import when_rolled_back
from arqonce.wire.keys import JOB_KEY, UNIQUE_KEY

Parameters = Mapping[str, Any]


@contextmanager
def stand_in_for_redis(jobs: EnqueuedJobs) -> Iterator[None]:
    """Record in ``jobs`` what this process enqueues within the context."""
    with ExitStack() as stack:
        for name, stand_in in _transport(jobs).items():
            stack.enter_context(patch.object(SyncJobClient, name, stand_in))
            stack.enter_context(patch.object(JobClient, name, _awaitable(stand_in)))
        find_runner = statements.statement_runner  # executes each promise
        stack.enter_context(patch.object(statements, "statement_runner", _recording(jobs, find_runner)))
        yield


def _transport(jobs: EnqueuedJobs) -> dict[str, Callable[..., Any]]:
    """Return replacements of the client methods that communicate with Redis."""

    def call(_client: object, call: Call) -> list[int | bytes]:
        keys = [key for key in call.keys if key.startswith(JOB_KEY)]
        names = [key for key in call.keys if key.startswith(UNIQUE_KEY)]
        messages = [argument for argument in call.arguments if isinstance(argument, bytes)]
        found = [
            RecordedJob.of(key.removeprefix(JOB_KEY), message, due_ms=int(call.arguments[0]), queue=call.keys[-1])
            for key, message in zip(keys, messages, strict=True)
        ]
        if not names:
            return [int(jobs.record(job)) for job in found]
        window_ms = int(call.arguments[2])
        return [jobs.record_unique(name, window_ms, job).encode() for name, job in zip(names, found, strict=True)]

    def wait(_client: object, job_id: str, *_: object, is_promised: bool) -> bytes:
        if jobs.due_ms(job_id) is None and not is_promised:
            raise missing(job_id)
        return jobs.result(job_id)

    def info(_client: object, job_id: str) -> JobInfo:
        return read_info(job_id, score=jobs.due_ms(job_id), is_running=False, data=jobs.end(job_id))

    def ask_to_abort(_client: object, job_id: str, **_is_promised: object) -> None:
        jobs.abort(job_id)

    def ping(_client: object) -> None:
        pass

    replaced: dict[str, Callable[..., Any]] = {
        "_call": call,
        "_wait": wait,
        "_info": info,
        "_ask_to_abort": ask_to_abort,
        "ping": ping,
    }
    return {name: _of_open(stand_in) for name, stand_in in replaced.items()}


def _of_open(function: Callable[..., Any]) -> Callable[..., Any]:
    """Raise for a closed client, as the client itself does."""

    def checked(client: JobClient | SyncJobClient, *arguments: object, **options: object) -> Any:  # noqa: ANN401 - as the function
        require_open(is_closed=client._is_closed)  # noqa: SLF001 - in the client's place
        return function(client, *arguments, **options)

    return checked


def _awaitable(function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def awaitable(*arguments: object, **options: object) -> Any:  # noqa: ANN401 - as the function
        return function(*arguments, **options)

    return awaitable


def _recording(jobs: EnqueuedJobs, find_runner: Callable[..., Callable[..., Any]]) -> Callable[..., object]:
    """Wrap ``find_runner``, so that the statement runners it returns record each new promise."""

    def find_recording_runner(connection: object, *, is_async: bool) -> object:
        if not jobs.needs_tables:
            return _awaitable(answer) if is_async else answer
        run = find_runner(connection, is_async=is_async)

        def run_and_record(connection: object, statement: str, parameters: Parameters) -> Any:  # noqa: ANN401 - the runner's
            outcome = run(connection, statement, parameters)
            if not (promised := _promised(parameters)):
                return outcome  # a status query
            if inspect.isawaitable(outcome):
                return _await_and_record(jobs, outcome, connection, promised)
            return _record(jobs, outcome, connection, promised)

        return run_and_record

    def answer(connection: object, _statement: str, parameters: Parameters) -> object:
        if not (promised := _promised(parameters)):
            return jobs.status_in_tables(parameters["job_id"])
        if "unique_name" in parameters:
            name, window_ms = parameters["unique_name"], int(parameters["window_ms"])
            return _record(jobs, jobs.unique_job(name, window_ms, parameters["job_id"]), connection, promised)
        return _record(jobs, " ".join(map(jobs.outcome_of, promised)), connection, promised)

    return find_recording_runner


async def _await_and_record(
    jobs: EnqueuedJobs, outcomes: Awaitable[object], connection: object, promised: Sequence[RecordedJob]
) -> object:
    return _record(jobs, await outcomes, connection, promised)


def _record(jobs: EnqueuedJobs, outcomes: object, connection: object, promised: Sequence[RecordedJob]) -> object:
    if outcomes is not None:
        for job, outcome in zip(promised, str(outcomes).split(), strict=True):
            if outcome in {"new", job.job_id}:  # a unique request has its job's id as outcome
                jobs.promise(job)
                when_rolled_back(connection, partial(jobs.forget, job))
    return outcomes


def _promised(parameters: Parameters) -> list[RecordedJob]:
    """Return the jobs that a statement inserts; none for a status query."""
    if "message" in parameters:
        rows = [(parameters["job_id"], parameters["message"], parameters["request_hash"])]
    elif "messages" in parameters:
        names = ("job_ids", "messages", "request_hashes")
        rows = list(zip(*(parameters[name] for name in names), strict=True))
    else:
        return []
    due_ms, queue = int(parameters["due_ms"]), parameters["queue"]
    return [
        RecordedJob.of(job_id, bytes.fromhex(message), due_ms=due_ms, queue=queue, request_hash=bytes.fromhex(request))
        for job_id, message, request in rows
    ]
