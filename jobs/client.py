"""Enqueues jobs and waits for their results, from asyncio. Speaks arq's wire format without importing arq."""

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from jobs.codec import decode, encode
from jobs.connection import build_redis, explain
from jobs.failures import (
    InvalidMessageError,
    InvalidResultError,
    JobAbortedError,
    JobFailedError,
    ResultMissingError,
    failure_from_wire,
)
from jobs.payloads import AnyPayload, Payload
from jobs.wire import EXPIRY, JOB_KEY, QUEUE, RESULT_KEY, cut_calls, due_ms, job_message, new_job_id, now_ms, to_ms

if TYPE_CHECKING:
    from jobs.outbox import Promised  # which needs Enqueued from here

ResultT = TypeVar("ResultT", bound=BaseModel)

_CONNECTIONS = 20
"""Most connections of one client."""

_PARTS_AT_ONCE = 4
"""How many calls one ``enqueue_many`` has under way."""

_FIRST_POLL, _LAST_POLL = timedelta(milliseconds=5), timedelta(milliseconds=250)
"""How often ``result`` looks: twice as rarely each time."""

_ENQUEUE = """
local queue, due, expiry = KEYS[#KEYS], ARGV[1], ARGV[2]
local added, queued = {}, {}
redis.call('ZSCORE', queue, '')  -- fails before anything is written, if it is no queue
for job = 1, #KEYS - 1 do
    local key = KEYS[job]
    local id = string.sub(key, 9)  -- behind arq:job:
    if redis.call('EXISTS', key, 'arq:result:' .. id) > 0 then added[job] = 0
    else
        redis.call('SET', key, ARGV[2 + job], 'PX', expiry)
        added[job] = 1
        queued[#queued + 1] = due
        queued[#queued + 1] = id
    end
end
if #queued > 0 then redis.call('ZADD', queue, unpack(queued)) end
return added
"""
"""What arq does with WATCH and MULTI in three round trips for each job, in one for all: it cannot lose a race and
answer ``None``. Keys are those of the jobs, and the queue; arguments when they are due, how long they are kept, and
their messages. Answers for each whether it was added."""


class Enqueued(Enum):
    """What became of a request to enqueue."""

    NEW = "new"
    """The job is queued now."""

    DUPLICATE = "duplicate"
    """A job with this key is queued, running or finished within the last hour: nothing was added."""


@dataclass(frozen=True)
class JobHandle(Generic[ResultT]):
    """A job that was enqueued, by this call or by an earlier one with the same key."""

    job_id: str
    outcome: Enqueued
    _client: "JobClient"
    _result_type: type[ResultT]
    _is_promised: bool = False

    async def result(self, *, timeout: timedelta | None = None) -> ResultT:  # noqa: ASYNC109 - arq's name for it
        """Wait for the result. ``timeout`` counts from this call; ``None`` waits for ever. Polls every 5 to 250 ms.

        Raises:
            JobFailedError: the job failed; the subclass and ``type`` say why.
            ResultMissingError: the job is neither queued nor answered; never raised for a promised job, see ``handle``.
            InvalidResultError: the answer is of another kind of job, one that had the same key.
            TimeoutError: no result in time; the job goes on, and ``result`` may be called again.
            QueueUnavailableError: Redis cannot be reached.
        """
        seconds = None if timeout is None else timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                message = await self._client._wait_for_result(  # noqa: SLF001 - two halves
                    self.job_id, seconds, is_promised=self._is_promised
                )
        except TimeoutError:
            text = f"job {self.job_id} has no result after {seconds:g} s; it stays queued: is a worker running?"
            raise TimeoutError(text) from None
        if message.get("s") is True:
            return self._read_result(message.get("r"))
        failure = message.get("r")
        if isinstance(failure, asyncio.CancelledError):
            # Not raised as it is: it would look like a cancellation of the caller's own task.
            raise JobAbortedError("somebody has aborted the job")
        raise failure if isinstance(failure, JobFailedError) else failure_from_wire(failure)

    def _read_result(self, result: object) -> ResultT:
        try:
            return self._result_type.model_validate(result)
        except ValidationError:
            text = f"job {self.job_id} has answered something else than {self._result_type.__name__}"
            raise InvalidResultError(f"{text}: was its key used for another kind of job?") from None


class JobClient:
    """Enqueues jobs. Safe to share between tasks of one event loop; made by ``open_client``."""

    def __init__(self, redis: Redis, url: str, *, queue: str) -> None:
        """Use an open connection. ``url`` is only for errors."""
        self._redis = redis
        self._url = url
        self._queue = queue
        self._script = redis.register_script(_ENQUEUE)
        # More callers than connections wait for each other here, not in the pool, whose wait has a limit.
        self._slots = asyncio.Semaphore(_CONNECTIONS)

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
            InvalidMessageError: key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; with a key it is safe to call again.
        """
        now = now_ms()
        due = due_ms(now, delay, at)
        job_id = new_job_id(key)
        (added,) = await self._send([job_id], [_message(payload, now)], now=now, due=due)
        return self._handle(payload, job_id, added)

    async def enqueue_many(
        self, payloads: Iterable[Payload[ResultT]], *, keys: Sequence[str] | None = None
    ) -> list[JobHandle[ResultT]]:
        """Enqueue many jobs, due now; one round trip for each 500, or each 4 MiB of messages.

        Raises:
            InvalidMessageError: a key or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; a part may be queued: call again with the same keys.
        """
        listed = list(payloads)
        if keys is not None and len(keys) != len(listed):
            message = f"there are {len(listed)} payloads and {len(keys)} keys: give one key for each"
            raise InvalidMessageError(message)
        ids = [new_job_id(key) for key in (keys or itertools.repeat(None, len(listed)))]
        now = now_ms()
        messages = [_message(payload, now) for payload in listed]
        added = await self._send_parts(ids, messages, now=now)
        return [self._handle(payload, job_id, new) for payload, job_id, new in zip(listed, ids, added, strict=True)]

    def handle(self, promised: "Promised[ResultT]") -> JobHandle[ResultT]:
        """Return the handle of a job that was promised with ``jobs.outbox.enqueue_in``. No round trip.

        Its ``result`` waits although the job may not be in Redis yet; call it after the commit, and with a timeout:
        a transaction that was rolled back has promised nothing, and is waited for in vain. So is a result that Redis
        has lost, or has kept for its hour. The job's receipt still has it: ``enqueue`` the same payload with
        ``key=promised.job_id``, and the worker answers from there without running the job again.
        """
        return JobHandle(promised.job_id, promised.outcome, self, promised.result_type, _is_promised=True)

    async def _send_parts(self, ids: Sequence[str], messages: Sequence[bytes], *, now: int) -> list[int]:
        """Send parts in turn, some at once: one is written while Redis works on another."""
        at_once = asyncio.Semaphore(_PARTS_AT_ONCE)

        async def send(part: slice) -> list[int]:
            async with at_once:
                return await self._send(ids[part], messages[part], now=now, due=now)

        answers = await asyncio.gather(*map(send, cut_calls(list(map(len, messages)))), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [added for answer in answers if isinstance(answer, list) for added in answer]

    async def _send(self, ids: Sequence[str], messages: Sequence[bytes], *, now: int, due: int) -> list[int]:
        keys = [JOB_KEY + job_id for job_id in ids]
        lifetime = max(0, due - now) + to_ms(EXPIRY)
        with self._explained():
            async with self._slots:
                added: list[int] = await self._script(keys=[*keys, self._queue], args=[due, lifetime, *messages])
        return added

    def _handle(self, payload: Payload[ResultT], job_id: str, added: int) -> JobHandle[ResultT]:
        outcome = Enqueued.NEW if added else Enqueued.DUPLICATE
        return JobHandle(job_id, outcome, self, payload.result_type())

    async def _wait_for_result(self, job_id: str, seconds: float | None, *, is_promised: bool) -> dict[str, Any]:
        poll = _FIRST_POLL
        # Looked at besides the caller's timeout: on Python 3.11 redis-py can swallow that one's cancellation.
        end = math.inf if seconds is None else time.monotonic() + seconds
        while time.monotonic() < end:
            with self._explained():
                async with self._slots, self._redis.pipeline(transaction=True) as pipe:
                    pipe.get(RESULT_KEY + job_id)
                    pipe.zscore(self._queue, job_id)
                    data, score = await pipe.execute()
            if data is not None:
                return decode(data)
            if score is None and not is_promised:
                message = f"job {job_id} is not queued and has no result: it never was, or its result has expired"
                raise ResultMissingError(message)
            await asyncio.sleep(poll.total_seconds())
            poll = min(2 * poll, _LAST_POLL)
        raise TimeoutError

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise explain(error, self._url) from error


@asynccontextmanager
async def open_client(redis_url: str, *, password: str | None = None, queue: str = QUEUE) -> AsyncIterator[JobClient]:
    """Yield a client for the queue, and close its connections at the end. One round trip, to see that Redis is there.

    Raises:
        QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
    """
    async with build_redis(redis_url, Redis, password=password, max_connections=_CONNECTIONS) as redis:
        client = JobClient(redis, redis_url, queue=queue)
        with client._explained():  # noqa: SLF001 - two halves of one module
            await redis.ping()
        yield client


def _message(payload: AnyPayload, now: int) -> bytes:
    return encode(job_message(payload, enqueued_ms=now))
