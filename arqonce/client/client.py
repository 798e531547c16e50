"""Enqueues jobs and waits for their results, from asyncio. Speaks arq's wire format without importing arq.

What is sent and how answers are read is in ``messages`` and ``results``, the same for ``sync_client``.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.client.answers import (
    JobInfo,
    JobStatus,
    late,
    read_answer,
    read_info,
    require_open,
    require_timeout,
    silent,
    was_aborted,
)
from arqonce.client.requests import ABORTED_SCORE, ENQUEUE, Call, Enqueued, Request, abort_ms
from arqonce.client.waiting import ResultWatch
from arqonce.connection.direct import DirectConnection
from arqonce.connection.primary import ReplicaError
from arqonce.connection.redis import build_redis, explain, explained, location
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.wire.keys import ABORT_KEY, IN_PROGRESS_KEY, QUEUE, RESULT_KEY, require_job_id, require_kind

if TYPE_CHECKING:
    from arqonce.outbox import Promised  # which needs Enqueued from here

__all__ = ["Enqueued", "JobClient", "JobHandle", "open_client"]

ResultT = TypeVar("ResultT", bound=BaseModel)

_PARTS_AT_ONCE = 4
"""How many calls one ``enqueue_many`` has under way."""


@dataclass(frozen=True)
class JobHandle(Generic[ResultT]):
    """A job that was enqueued, by this call or by an earlier one with the same key."""

    job_id: str
    outcome: Enqueued
    _client: "JobClient"
    _result_type: type[ResultT]
    _is_promised: bool = False
    _mark: str | None = None
    """Of the request, if another one may have the key."""

    async def result(self, *, timeout: timedelta | None = None) -> ResultT:  # noqa: ASYNC109 - arq's name for it
        """Wait for the result. ``timeout`` counts from this call; ``None`` waits for ever.

        Does not poll: Redis tells when there is a result (Redis 6, and the right to CLIENT TRACKING). One round
        trip at the beginning and one at the end, on one connection for all who wait on this client. While Redis is
        silent, the timeout may be overrun by 1 s, the shortest wait for one answer.
        If the network forgets the connection without a word, the result is seen at the next look, 30 s after the last.

        Raises:
            JobFailedError: the job failed; the subclass and ``type`` say why.
            RequestConflictError: the key was used for another request, and this is not its answer.
            ResultMissingError: the job is neither queued nor answered; never raised for a promised job, see ``handle``.
            InvalidResultError: the answer is of another kind of job, one that had the same key.
            TimeoutError: no result in time; the job goes on, and ``result`` may be called again.
            QueueUnavailableError: Redis cannot be reached for a second, or has been silent for 5 s.
        """
        require_timeout(timeout)
        data = await self._client._wait(self.job_id, timeout, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return read_answer(data, self.job_id, self._result_type, mark=self._mark)

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

    async def abort(self, *, timeout: timedelta | None = None) -> bool:  # noqa: ASYNC109 - as for result
        """Ask for the job's end and wait for it; say whether it was aborted. Nothing of an aborted job takes effect.

        ``False``: it had ended already, or was quicker. Two round trips, and those of ``result``. Needs the right to
        write ``arq:abort``, which the user ``operator`` of ``deploy/`` has and ``producer`` has not.

        A promised job that is not due ends when Redis gets it, 10 s before it is due, and until then this waits: give a
        timeout. The request stands for a year, in Redis alone, and for a minute if plain arq workers abort jobs there.

        Raises:
            ResultMissingError: the job is neither queued nor answered.
            TimeoutError: it has not ended in time; the request stands.
            QueueUnavailableError: Redis cannot be reached.
        """
        require_timeout(timeout)
        await self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        data = await self._client._wait(self.job_id, timeout, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return was_aborted(lambda: read_answer(data, self.job_id, self._result_type, mark=self._mark))


class JobClient:
    """Enqueues jobs. Safe to share between tasks of one event loop; made by ``open_client``."""

    def __init__(self, redis: Redis, url: str, *, queue: str) -> None:
        """Use an open connection. ``url`` is only for errors."""
        self._url = url
        self._queue = queue
        self._is_closed = False
        # redis-py spends as much time on a command as Redis and the network together.
        self._direct = DirectConnection(redis)
        self._retry: Retry = deepcopy(redis.connection_pool.connection_kwargs.get("retry") or Retry(NoBackoff(), 0))
        self._retry.update_supported_errors([ReplicaError])  # the next connection may reach the primary
        self._watch = ResultWatch(redis, queue)

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
        connection is lost while Redis answers, the call is repeated and may say ``DUPLICATE`` of its own job.

        Raises:
            InvalidMessageError: payload, key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; with a key it is safe to call again.
        """
        request = Request.of([payload], [key], delay=delay, at=at)
        (call,) = request.calls(self._queue)
        (handle,) = self._handles(request, await self._call(call))
        return handle

    async def enqueue_many(
        self, payloads: Iterable[Payload[ResultT]], *, keys: Sequence[str] | None = None
    ) -> list[JobHandle[ResultT]]:
        """Enqueue many jobs, due now; one round trip for each 500, or each 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; a part may be queued: call again with the same keys.
        """
        request = Request.of(payloads, keys)
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

    def handle(self, promised: "Promised[ResultT]") -> JobHandle[ResultT]:
        """Return the handle of a job that was promised with ``arqonce.outbox.enqueue_in``. No round trip.

        Its ``result`` waits although the job may not be in Redis yet; call it after the commit, and with a timeout:
        a transaction that was rolled back has promised nothing, and is waited for in vain. So is a result that Redis
        has lost, or has kept for its hour. The job's receipt still has it: ``enqueue`` the same payload with
        ``key=promised.job_id``, and the worker answers from there without running the job again.
        """
        return JobHandle(promised.job_id, promised.outcome, self, promised.result_type, _is_promised=True)

    def handle_of(self, payload: type[Payload[ResultT]], job_id: str) -> JobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere, for instance in an earlier request. No round trip.

        Its outcome is ``DUPLICATE``. Whether there is such a job is seen by ``status``.

        Raises:
            InvalidMessageError: that cannot be a job's id, or is no kind of payload.
        """
        require_kind(payload)
        return JobHandle(require_job_id(job_id), Enqueued.DUPLICATE, self, payload.result_type())

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

    @contextmanager
    def _explained(self) -> Iterator[None]:
        require_open(is_closed=self._is_closed)
        with explained(self._url):
            yield

    def _handles(self, request: Request[ResultT], added: Iterable[int]) -> Iterator[JobHandle[ResultT]]:
        for job_id, outcome, result_type, mark in request.outcomes(added):
            yield JobHandle(job_id, outcome, self, result_type, _mark=mark)

    async def _wait(self, job_id: str, timeout: timedelta | None, *, is_promised: bool) -> bytes:  # noqa: ASYNC109 - result's
        require_open(is_closed=self._is_closed)
        loop = asyncio.get_running_loop()
        end = math.inf if timeout is None else loop.time() + timeout.total_seconds()
        try:
            return await self._watch.result_of(job_id, end=end, is_promised=is_promised)
        except RedisError as error:
            if isinstance(error, RedisTimeoutError) and loop.time() >= end:
                raise silent(job_id, timeout, location(self._url)) from error
            raise explain(error, self._url) from error
        except TimeoutError:
            raise late(job_id, timeout, queue=self._queue, is_promised=is_promised) from None

    async def _info(self, job_id: str) -> JobInfo:
        score, running, data = await self._repeated(
            lambda: self._direct.transaction(
                ("ZSCORE", self._queue, job_id), ("EXISTS", IN_PROGRESS_KEY + job_id), ("GET", RESULT_KEY + job_id)
            )
        )
        due = None if score is None else float(score)
        return read_info(job_id, score=due, is_running=bool(running), data=data)

    async def _ask_to_abort(self, job_id: str, *, is_promised: bool) -> None:
        info = await self._info(job_id)
        if not info.can_be_aborted and not is_promised:
            return
        commands: list[tuple[str | int, ...]] = [("ZADD", ABORT_KEY, abort_ms(info), job_id)]
        if info.status is not JobStatus.IN_PROGRESS:
            commands.append(("ZADD", self._queue, "XX", ABORTED_SCORE, job_id))
        await self._repeated(lambda: self._direct.transaction(*commands))

    def close(self) -> None:
        """End all waiting, and take no more calls. ``open_client`` calls it."""
        self._is_closed = True
        self._direct.close()
        self._watch.close()


async def _again(_error: RedisError) -> None:
    """Do nothing between two attempts: the connection is opened anew by itself."""


@asynccontextmanager
async def open_client(
    redis_url: str, *, password: str | None = None, sentinel_password: str | None = None, queue: str = QUEUE
) -> AsyncIterator[JobClient]:
    """Yield a client for the queue, and close its connections at the end. One round trip, to see that Redis is there.

    ``redis_url`` is one of redis-py's, or ``redis+sentinel://host1:26379,host2:26379/mymaster/0`` with the Sentinels
    that say where the primary is; a password that is not in it is given beside it.

    Raises:
        QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
    """
    redis_url = with_sentinel_password(redis_url, sentinel_password)
    async with build_redis(redis_url, Redis, password=password) as redis:
        client = JobClient(redis, redis_url, queue=queue)
        await client.ping()
        try:
            yield client
        finally:
            client.close()
            await client._watch.aclose()  # noqa: SLF001 - two halves
