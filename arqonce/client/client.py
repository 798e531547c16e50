"""Enqueues jobs and waits for their results, from asyncio. Speaks arq's wire format without importing arq.

What is sent, and how answers are read, stands in ``requests`` and ``answers``, the same for ``sync_client``.
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
from redis.exceptions import RedisError

from arqonce.client.answers import RESULT_TIMEOUT, JobInfo, seconds_of
from arqonce.client.explained import ExplainedClient
from arqonce.client.requests import (
    ENQUEUE,
    Call,
    Handle,
    Promised,
    Request,
    abort_commands,
    found_again,
    look_commands,
    read_look,
)
from arqonce.client.waiting import ResultWatch
from arqonce.connection.direct import DirectConnection
from arqonce.connection.primary import ReplicaError
from arqonce.connection.redis import RETRIES, build_redis
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.wire.keys import QUEUE
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)

_PARTS_AT_ONCE = 4
"""How many calls one ``enqueue_many`` has under way."""


@dataclass(frozen=True)
class JobHandle(Handle[ResultT]):
    """A job that was enqueued, by this call or by an earlier one with the same key."""

    _client: "JobClient" = field(kw_only=True, repr=False)

    async def result(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> ResultT:  # noqa: ASYNC109 - arq's name for it
        """Wait for the result, for 30 s unless ``timeout`` says otherwise: in seconds, from this call on.

        ``None`` waits for ever, 0 only looks.

        Does not poll: Redis tells when there is a result (Redis 6, and the right to CLIENT TRACKING). One round
        trip at the beginning and one at the end, on one connection for all who wait on this client. While Redis is
        silent, the timeout may be overrun by 1 s, the shortest wait for one answer.
        If the network forgets the connection without a word, the result is seen at the next look, 30 s after the last.

        Raises:
            JobFailedError: the job failed; the subclass and ``code`` say why.
            RequestConflictError: the key was used for another request, and this is not its answer.
            ResultMissingError: the job is neither queued nor answered; never raised for a promised job, see ``handle``.
            InvalidResultError: the answer is of another kind of job, one that had the same key.
            TimeoutError: no result in time; the job goes on, and ``result`` may be called again.
            TypeError, ValueError: the timeout is no time to wait.
            QueueUnavailableError: Redis cannot be reached for a second, or has been silent for 5 s.
        """
        seconds = seconds_of(timeout)
        return self._read(await self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves

    async def status(self) -> JobStatus:
        """Say where the job is. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return (await self.info()).status

    async def info(self) -> JobInfo:
        """Return what Redis tells about the job: status, times, attempts. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return await self._client._info(self.job_id)  # noqa: SLF001 - two halves

    async def abort(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> bool:  # noqa: ASYNC109 - as for result
        """Ask for the job's end and wait for it; say whether it was aborted. Nothing of an aborted job takes effect.

        ``False``: it had ended already, or was quicker. Two round trips, and those of ``result``. Needs the right to
        write ``arq:abort``, which the user ``operator`` of ``deploy/`` has and ``producer`` has not.

        A promised job that is not due ends when Redis gets it, 10 s before it is due; a shorter ``timeout`` ends in
        TimeoutError. The request stands for a year, in Redis alone, and for a minute if plain arq workers abort jobs
        there.

        Raises:
            ResultMissingError: the job is neither queued nor answered.
            TimeoutError: it has not ended in time; the request stands.
            QueueUnavailableError: Redis cannot be reached.
        """
        seconds = seconds_of(timeout)
        await self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return self._was_aborted(await self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves


class JobClient(ExplainedClient):
    """Enqueues jobs and waits for their results. Safe to share between tasks of one event loop.

    ``async with JobClient(url) as client`` first sees that Redis is there, with one round trip, and closes the client
    at the end. Without a with block it connects at its first call; ``aclose`` then ends it.
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
        """Open no connection.

        ``url`` is one of redis-py's, or ``redis+sentinel://host1:26379,host2:26379/mymaster/0`` with the Sentinels that
        say where the primary is; a password that is not in it is given beside it. ``retries`` is how often a call is
        sent again after a lost connection.

        Raises:
            QueueUnavailableError: the URL is none of Redis'; the text names the cure.
        """
        url = with_sentinel_password(url, sentinel_password)
        super().__init__(url, queue=queue)
        self._redis = build_redis(url, Redis, password=password, retries=retries)
        # redis-py spends as much time on a command as Redis and the network together.
        self._direct = DirectConnection(self._redis)
        self._retry: Retry = deepcopy(
            self._redis.connection_pool.connection_kwargs.get("retry") or Retry(NoBackoff(), 0)
        )
        self._retry.update_supported_errors([ReplicaError])  # the next connection may reach the primary
        self._watch = ResultWatch(self._redis, queue)

    async def __aenter__(self) -> Self:
        """See that Redis is there.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
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
        """End all waiting, close the connections, and take no more calls. May be called again."""
        self._is_closed = True
        self._watch.close()
        await self._direct.aclose()
        await self._watch.aclose()
        await self._redis.aclose()

    async def enqueue(
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> JobHandle[ResultT]:
        """Enqueue a job, due now, after ``delay`` or ``at`` a time with a zone. One round trip.

        With a ``key`` (an idempotency key: it becomes the job's id) only the first of several calls enqueues, as long
        as the job is queued or its result is kept, which is an hour unless the worker is set otherwise. If the
        connection is lost while Redis answers, the call is repeated, and ``is_new`` may be false for its own job.

        Raises:
            InvalidMessageError: payload, key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; with a key it is safe to call again.
        """
        request = Request.of([payload], [key], delay=delay, at=at)
        (call,) = request.calls(self._queue)
        (handle,) = self._handles(request, await self._call(call))
        return handle

    async def enqueue_many(
        self,
        payloads: Iterable[Payload[ResultT]],
        *,
        keys: Sequence[str] | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> list[JobHandle[ResultT]]:
        """Enqueue many jobs, as ``enqueue`` does; one round trip for each 500, or each 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; a part may be queued: call again with the same keys.
        """
        request = Request.of(payloads, keys, delay=delay, at=at)
        at_once = asyncio.Semaphore(_PARTS_AT_ONCE)  # one part is written while Redis works on another

        async def send(call: Call) -> list[int]:
            async with at_once:
                return await self._call(call)

        answers = await asyncio.gather(*map(send, request.calls(self._queue)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        added = (one for answer in answers if isinstance(answer, list) for one in answer)
        return list(self._handles(request, added))

    @overload
    def handle(self, job: Promised[ResultT], /) -> JobHandle[ResultT]: ...

    @overload
    def handle(self, job: type[Payload[ResultT]], job_id: str, /) -> JobHandle[ResultT]: ...

    def handle(
        self, job: Promised[ResultT] | type[Payload[ResultT]], job_id: str | None = None, /
    ) -> JobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere. No round trip.

        ``handle(CreateUser, job_id)`` is for one that was enqueued earlier, also by another process; ``is_new`` is
        false. Whether there is such a job is seen by ``status``.

        ``handle(promised)`` is for one that was promised with ``enqueue_in``. Its ``result`` waits although the job may
        not be in Redis yet; call it after the commit: a transaction that was rolled back has promised nothing, and is
        waited for in vain. So is a result that Redis has lost, or has kept for its hour. The job's receipt still has
        it: ``enqueue`` the same payload with ``key=promised.job_id``, and the worker answers from there without running
        the job again.

        Raises:
            InvalidMessageError: that cannot be a job's id, or is no kind of payload.
        """
        return JobHandle(*found_again(job, job_id), _client=self)

    async def ping(self) -> None:
        """See that Redis is there. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
        """
        await self._repeated(lambda: self._direct.ask(("PING",)))

    async def _call(self, call: Call) -> list[int]:
        return await self._repeated(lambda: self._direct.run(ENQUEUE, call.keys, call.arguments))

    async def _repeated(self, action: Callable[[], Awaitable[list[Any]]]) -> list[Any]:
        """Do something, and again on a new connection if it is lost."""
        with self._explained():
            return await self._retry.call_with_retry(action, _again)

    def _handles(self, request: Request[ResultT], added: Iterable[int]) -> Iterator[JobHandle[ResultT]]:
        return (JobHandle(*fields, _client=self) for fields in request.handled(added))

    async def _wait(self, job_id: str, seconds: float | None, *, is_promised: bool) -> bytes:
        loop = asyncio.get_running_loop()
        end = math.inf if seconds is None else loop.time() + seconds
        with self._waiting(job_id, seconds, is_over=lambda: loop.time() >= end, is_promised=is_promised):
            return await self._watch.result_of(job_id, end=end, is_promised=is_promised)

    async def _info(self, job_id: str) -> JobInfo:
        commands = look_commands(self._queue, job_id)
        return read_look(job_id, await self._repeated(lambda: self._direct.transaction(*commands)))

    async def _ask_to_abort(self, job_id: str, *, is_promised: bool) -> None:
        if commands := abort_commands(self._queue, await self._info(job_id), is_promised=is_promised):
            await self._repeated(lambda: self._direct.transaction(*commands))


async def _again(_error: RedisError) -> None:
    """Do nothing between two attempts: the connection is opened anew by itself."""
