"""Enqueues jobs and waits for their results, from asyncio. Speaks arq's wire format without importing arq.

``requests`` builds what is sent and ``answers`` reads what comes back, for this client and for ``sync_client``.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from pydantic import BaseModel
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from arqonce.client.answers import RESULT_TIMEOUT, JobInfo, seconds_of
from arqonce.client.explained import ExplainedClient
from arqonce.client.loops import LinesOfLoops
from arqonce.client.requests import (
    Call,
    Handle,
    Promised,
    Request,
    abort_commands,
    at_once,
    found_again,
    in_turns,
    look_commands,
    read_look,
)
from arqonce.connection.primary import ReplicaError
from arqonce.connection.redis import CLOSED, RETRIES, build_redis, explain
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.tracing import sending
from arqonce.wire.keys import QUEUE
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)

_PARTS_AT_ONCE = 4
"""Most script calls that one ``enqueue_many`` runs concurrently."""


@dataclass(frozen=True)
class JobHandle(Handle[ResultT]):
    """A job that was enqueued by this call, or by an earlier one with the same key."""

    _client: "JobClient" = field(kw_only=True, repr=False)

    async def result(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> ResultT:  # noqa: ASYNC109 - arq's name for it
        """Wait for the result and return it. ``timeout`` is in seconds from this call, 30 by default.

        ``None`` waits for ever; 0 checks once.

        Does not poll: Redis notifies the client of the result (Redis 6, and the right to CLIENT TRACKING). One round
        trip at the beginning and one at the end, on one connection shared by all waits of this client. If Redis does
        not answer, the wait may exceed the timeout by 1 s, the shortest wait for one answer.
        If the network drops the connection silently, the result is found at the next check, at most 30 s later.

        Raises:
            JobFailedError: the job failed; the subclass and ``code`` give the reason.
            RequestConflictError: the key was used for another request, and the result is that request's.
            ResultMissingError: the job is not queued and has no result. Not for a promised job, see ``handle``.
            InvalidResultError: the result is that of another kind of job with the same key.
            TimeoutError: no result in time. The job continues; ``result`` may be called again.
            TypeError, ValueError: the timeout is invalid.
            QueueUnavailableError: Redis was unreachable for 1 s, or did not answer for 5 s.
        """
        seconds = seconds_of(timeout)
        return self._read(await self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves

    async def status(self) -> JobStatus:
        """Return the job's status. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return (await self.info()).status

    async def info(self) -> JobInfo:
        """Return what Redis knows of the job: status, times, attempts. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return await self._client._info(self.job_id)  # noqa: SLF001 - two halves

    async def abort(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> bool:  # noqa: ASYNC109 - as for result
        """Request the job's abort, wait until it ends, and return whether it was aborted. An aborted job has no effect.

        Returns ``False`` if the job ended before the abort reached it. Two round trips, plus those of ``result``. Needs
        the right to write ``arq:abort``; of the users in ``deploy/``, ``operator`` has it and ``producer`` does not.

        A promised job that is not due ends when the relay writes it into Redis, 10 s before it is due; with a shorter
        ``timeout`` the call raises TimeoutError. The abort request is kept for a year, only in Redis; for a minute if
        plain arq workers that abort jobs share the Redis.

        Raises:
            ResultMissingError: the job is not queued and has no result.
            TimeoutError: the job has not ended in time; the abort request stays in force.
            QueueUnavailableError: Redis cannot be reached.
        """
        seconds = seconds_of(timeout)
        await self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return self._was_aborted(await self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves


class JobClient(ExplainedClient):
    """Enqueues jobs and waits for their results. Safe to share between tasks, and between event loops.

    Each event loop that uses it has connections of its own.

    ``async with JobClient(url) as client`` checks that Redis answers, with one round trip, and closes the client at the
    end. Without a with block the client connects at its first call; close it with ``aclose``.
    """

    def __init__(
        self,
        url: str,
        *,
        password: str | None = None,
        sentinel_password: str | None = None,
        queue: str = QUEUE,
        retries: int = RETRIES,
    ) -> None:
        """Construct the client without connecting.

        ``url`` is a URL of redis-py, or ``redis+sentinel://host1:26379,host2:26379/mymaster/0`` to find the primary by
        Sentinels. Passwords may be passed separately. ``retries`` is how often a call is repeated after a lost
        connection.

        Raises:
            QueueUnavailableError: the URL is not a Redis URL; the text names the cure.
            InvalidMessageError: no queue may have that name.
        """
        url = with_sentinel_password(url, sentinel_password)
        super().__init__(url, queue=queue)
        self._redis = build_redis(url, Redis, password=password, retries=retries)
        self._retry: Retry = deepcopy(
            self._redis.connection_pool.connection_kwargs.get("retry") or Retry(NoBackoff(), 0)
        )
        self._retry.update_supported_errors([ReplicaError])  # the next connection may reach the primary
        # Not by redis-py, which takes as long for a command as Redis and the network together.
        self._lines = LinesOfLoops(self._redis, queue)

    async def __aenter__(self) -> Self:
        """Check that Redis answers.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses the client; the text names the cure.
        """
        try:
            await self.ping()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.aclose()

    async def aclose(self) -> None:
        """End all waits, close the connections, and reject further calls. May be called again."""
        self._is_closed = True
        await self._lines.aclose()
        await self._redis.aclose()

    async def enqueue(  # noqa: PLR0913 - when, how often, until when
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        unique_for: timedelta | None = None,
        expires: timedelta | datetime | None = None,
    ) -> JobHandle[ResultT]:
        """Enqueue a job, due now, after ``delay``, or ``at`` a datetime with a time zone. One round trip.

        With a ``key`` (an idempotency key, which becomes the job's id) only the first call enqueues the job. Later
        calls do nothing while the job is queued or its result is kept: an hour, unless the worker's settings differ. If
        the connection is lost before the answer, the call is repeated, and ``is_new`` may be false for its own job.

        With ``unique_for`` an equal request (same payload and queue) that was accepted with ``unique_for`` within that
        time is the same job: its handle is returned, also after it has ended, and ``is_new`` is false. Redis remembers
        it: if Redis is emptied, the next request is a new job. The time is that of the accepted call; later calls do
        not prolong it.

        ``expires``, a time from now or an aware datetime: if no worker has started the job by then, it does not run and
        ends with JobExpiredError. An attempt that has begun may end later, and be repeated.

        Raises:
            InvalidMessageError: the payload, key, a time or the size is invalid; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; with a key it is safe to call again.
        """
        with sending("enqueue", self._queue) as span:
            request = at_once(
                Request.steps(
                    [payload], [key], delay=delay, at=at, unique_for=unique_for, expires=expires, sending=span
                )
            )
            (call,) = request.calls(self._queue)
            (handle,) = self._handles(request, await self._call(call))
            return handle

    async def enqueue_many(  # noqa: PLR0913 - as enqueue
        self,
        payloads: Iterable[Payload[ResultT]],
        *,
        keys: Sequence[str] | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        unique_for: timedelta | None = None,
        expires: timedelta | datetime | None = None,
    ) -> list[JobHandle[ResultT]]:
        """Enqueue many jobs, as ``enqueue`` does. One round trip per 500 jobs, or per 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key, time or size is invalid; nothing was sent.
            QueueUnavailableError: Redis cannot be reached. Some jobs may be queued: call again with the same keys.
        """
        with sending("enqueue", self._queue) as span:
            request = await in_turns(
                Request.steps(payloads, keys, delay=delay, at=at, unique_for=unique_for, expires=expires, sending=span)
            )
            return list(self._handles(request, await self._call_all(request.calls(self._queue))))

    @overload
    def handle(self, job: Promised[ResultT], /) -> JobHandle[ResultT]: ...

    @overload
    def handle(
        self, job: type[Payload[ResultT]], job_id: str, /, *, is_promised: bool = False
    ) -> JobHandle[ResultT]: ...

    def handle(
        self,
        job: Promised[ResultT] | type[Payload[ResultT]],
        job_id: str | None = None,
        /,
        *,
        is_promised: bool = False,
    ) -> JobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere. No round trip.

        ``handle(CreateUser, job_id)`` is for a job that was enqueued earlier, by any process; ``is_new`` is false. Use
        ``status`` to check that there is such a job. With ``is_promised=True`` it is for a job that was promised by
        another process, such as a follow-up whose id a job has returned.

        ``handle(promised)`` is for a job that was promised with ``enqueue_in``. The ``result`` of a promised job waits
        even if the job is not in Redis yet. Call it after the commit: if the transaction rolled back, it waits in
        vain. It also waits in vain for a result that Redis has lost or that has expired. The job's receipt still holds
        that result: ``enqueue`` the same payload with ``key=promised.job_id``, and the worker answers from the receipt
        without running the job again.

        Raises:
            InvalidMessageError: the id is not valid, or the class is no payload.
        """
        return JobHandle(*found_again(job, job_id, is_promised=is_promised), _client=self)

    async def ping(self) -> None:
        """Check that Redis answers. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses the client; the text names the cure.
        """
        await self._repeated(lambda: self._lines.own().direct.ask(("PING",)))

    async def _call(self, call: Call) -> list[int | bytes]:
        return await self._repeated(lambda: self._lines.own().direct.run(call.script, call.keys, call.arguments))

    async def _call_all(self, calls: Iterable[Call]) -> list[int | bytes]:
        """Make the calls, and begin no more of them when one has failed: each of hundreds would wait for Redis."""
        at_once = asyncio.Semaphore(_PARTS_AT_ONCE)  # one call is sent while Redis executes another
        failures: list[Exception] = []

        async def send(call: Call) -> list[int | bytes]:
            async with at_once:
                if not failures:
                    try:
                        return await self._call(call)
                    except Exception as error:  # noqa: BLE001 - raised below
                        failures.append(error)
            return []

        answers = await asyncio.gather(*map(send, calls))
        if failures:
            raise failures[0]
        return [one for answer in answers for one in answer]

    async def _repeated(self, action: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        """Run the action; repeat it on a new connection after a loss, unless the client was closed meanwhile."""

        async def act() -> list[Any]:
            if self._is_closed:
                raise explain(RedisConnectionError(CLOSED), self._url)
            return await action()

        with self._explained():
            return await self._retry.call_with_retry(act, _again)

    def _handles(self, request: Request[ResultT], answers: Iterable[int | bytes]) -> Iterator[JobHandle[ResultT]]:
        return (JobHandle(*fields, _client=self) for fields in request.handled(answers))

    async def _wait(self, job_id: str, seconds: float | None, *, is_promised: bool) -> bytes:
        loop = asyncio.get_running_loop()
        end = math.inf if seconds is None else loop.time() + seconds
        with self._waiting(job_id, seconds, is_over=lambda: loop.time() >= end, is_promised=is_promised):
            return await self._lines.own().watch.result_of(job_id, end=end, is_promised=is_promised)

    async def _info(self, job_id: str) -> JobInfo:
        commands = look_commands(self._queue, job_id)
        return read_look(job_id, await self._repeated(lambda: self._lines.own().direct.transaction(*commands)))

    async def _ask_to_abort(self, job_id: str, *, is_promised: bool) -> None:
        if commands := abort_commands(self._queue, await self._info(job_id), is_promised=is_promised):
            await self._repeated(lambda: self._lines.own().direct.transaction(*commands))


async def _again(_error: RedisError) -> None:
    """Do nothing between two attempts: the next command reconnects by itself."""
