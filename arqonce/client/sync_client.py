"""Enqueues jobs and waits for their results, from threads and greenlets: for Django, Flask, scripts and gevent.

The names are those of ``client``. No event loop and no thread of ours; two connections, shared by all who call.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Generic, TypeVar

from pydantic import BaseModel
from redis import Redis
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
from arqonce.client.sync_waiting import SyncResultWatch
from arqonce.connection.redis import build_sync_redis, explain, explained, location
from arqonce.connection.sync_direct import Command, SyncDirectConnection
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.wire.keys import ABORT_KEY, IN_PROGRESS_KEY, QUEUE, RESULT_KEY, require_job_id, require_kind

if TYPE_CHECKING:
    from arqonce.outbox import Promised  # which needs Enqueued

ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class SyncJobHandle(Generic[ResultT]):
    """A job that was enqueued, by this call or by an earlier one with the same key."""

    job_id: str
    outcome: Enqueued
    _client: "SyncJobClient"
    _result_type: type[ResultT]
    _is_promised: bool = False
    _mark: str | None = None
    """Of the request, if another one may have the key."""

    def result(self, *, timeout: timedelta | None = None) -> ResultT:
        """Wait for the result. ``timeout`` counts from this call; ``None`` waits for ever.

        Does not poll: Redis tells when there is a result (Redis 6, and the right to CLIENT TRACKING). One round trip at
        the beginning and one at the end, on one connection for all who wait on this client. While Redis is silent, the
        timeout may be overrun by 1 s, the shortest wait for one answer, and by 5 s more for connecting.
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
        data = self._client._wait(self.job_id, timeout, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return read_answer(data, self.job_id, self._result_type, mark=self._mark)

    def status(self) -> JobStatus:
        """Say where the job is. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return self.info().status

    def info(self) -> JobInfo:
        """Return what Redis tells about the job: status, times, attempts. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return self._client._info(self.job_id)  # noqa: SLF001 - two halves

    def abort(self, *, timeout: timedelta | None = None) -> bool:
        """Ask for the job's end and wait for it; say whether it was aborted. Nothing of an aborted job takes effect.

        ``False``: it had ended already, or was quicker. Two round trips, and those of ``result``. Needs the right to
        write ``arq:abort``, which the user ``operator`` of ``deploy/`` has and ``producer`` has not. A promised job
        that is not due is aborted as ``JobHandle.abort`` says.

        Raises:
            ResultMissingError: the job is neither queued nor answered.
            TimeoutError: it has not ended in time; the request stands.
            QueueUnavailableError: Redis cannot be reached.
        """
        require_timeout(timeout)
        self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        data = self._client._wait(self.job_id, timeout, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return was_aborted(lambda: read_answer(data, self.job_id, self._result_type, mark=self._mark))


class SyncJobClient:
    """Enqueues jobs. Safe to share between threads or greenlets, and after a fork; made by ``open_sync_client``."""

    def __init__(self, redis: Redis, url: str, *, queue: str) -> None:
        """Use an open connection. ``url`` is only for errors."""
        self._url = url
        self._queue = queue
        self._is_closed = False
        self._direct = SyncDirectConnection(redis)
        self._watch = SyncResultWatch(redis, queue)

    def enqueue(
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> SyncJobHandle[ResultT]:
        """Enqueue a job, as ``JobClient.enqueue`` does. One round trip.

        Raises:
            InvalidMessageError: payload, key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; with a key it is safe to call again.
        """
        (handle,) = self._send(Request.of([payload], [key], delay=delay, at=at))
        return handle

    def enqueue_many(
        self, payloads: Iterable[Payload[ResultT]], *, keys: Sequence[str] | None = None
    ) -> list[SyncJobHandle[ResultT]]:
        """Enqueue many jobs, due now; one round trip for each 500, or each 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; a part may be queued: call again with the same keys.
        """
        return self._send(Request.of(payloads, keys))

    def handle(self, promised: "Promised[ResultT]") -> SyncJobHandle[ResultT]:
        """Return the handle of a job that was promised with ``arqonce.outbox.enqueue_in_sync``. No round trip.

        What ``JobClient.handle`` says of its ``result`` holds here, too: call it after the commit, with a timeout.
        """
        return SyncJobHandle(promised.job_id, promised.outcome, self, promised.result_type, _is_promised=True)

    def handle_of(self, payload: type[Payload[ResultT]], job_id: str) -> SyncJobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere, for instance in an earlier request. No round trip.

        Its outcome is ``DUPLICATE``. Whether there is such a job is seen by ``status``.

        Raises:
            InvalidMessageError: that cannot be a job's id, or is no kind of payload.
        """
        require_kind(payload)
        return SyncJobHandle(require_job_id(job_id), Enqueued.DUPLICATE, self, payload.result_type())

    def _send(self, request: Request[ResultT]) -> list[SyncJobHandle[ResultT]]:
        added = [one for call in request.calls(self._queue) for one in self._call(call)]
        return [
            SyncJobHandle(job_id, outcome, self, kind, _mark=mark)
            for job_id, outcome, kind, mark in request.outcomes(added)
        ]

    def _call(self, call: Call) -> list[int]:
        with self._explained():
            added: list[int] = self._direct.run(ENQUEUE, call.keys, call.arguments)
            return added

    def _wait(self, job_id: str, timeout: timedelta | None, *, is_promised: bool) -> bytes:
        end = math.inf if timeout is None else time.monotonic() + timeout.total_seconds()
        require_open(is_closed=self._is_closed)
        try:
            return self._watch.result_of(job_id, end=end, is_promised=is_promised)
        except RedisError as error:
            if isinstance(error, RedisTimeoutError) and time.monotonic() >= end:
                raise silent(job_id, timeout, location(self._url)) from error
            raise explain(error, self._url) from error
        except TimeoutError:
            raise late(job_id, timeout, queue=self._queue, is_promised=is_promised) from None

    def _info(self, job_id: str) -> JobInfo:
        with self._explained():
            score, running, data = self._direct.transaction(
                ("ZSCORE", self._queue, job_id), ("EXISTS", IN_PROGRESS_KEY + job_id), ("GET", RESULT_KEY + job_id)
            )
        due = None if score is None else float(score)
        return read_info(job_id, score=due, is_running=bool(running), data=data)

    def _ask_to_abort(self, job_id: str, *, is_promised: bool) -> None:
        info = self._info(job_id)
        if not info.can_be_aborted and not is_promised:
            return
        commands: list[Command] = [("ZADD", ABORT_KEY, abort_ms(info), job_id)]
        if info.status is not JobStatus.IN_PROGRESS:
            commands.append(("ZADD", self._queue, "XX", ABORTED_SCORE, job_id))
        with self._explained():
            self._direct.transaction(*commands)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        require_open(is_closed=self._is_closed)
        with explained(self._url):
            yield

    def ping(self) -> None:
        """See that Redis is there. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
        """
        with self._explained():
            self._direct.ask(("PING",))

    def close(self) -> None:
        """End all waiting, close the connections, and take no more calls. ``open_sync_client`` calls it."""
        self._is_closed = True
        self._direct.close()
        self._watch.close()


def build_sync_client(
    redis_url: str, *, password: str | None = None, sentinel_password: str | None = None, queue: str = QUEUE
) -> SyncJobClient:
    """Construct a client that lives as long as its process; it connects at its first call, also in a fork.

    The URLs are those of ``open_client``.

    For what has a module and no main function of its own: Django, Flask. For a script there is ``open_sync_client``.

    Raises:
        QueueUnavailableError: the URL is none of Redis'.
    """
    redis_url = with_sentinel_password(redis_url, sentinel_password)
    redis = build_sync_redis(redis_url, password=password)
    return SyncJobClient(redis, redis_url, queue=queue)


@contextmanager
def open_sync_client(
    redis_url: str, *, password: str | None = None, sentinel_password: str | None = None, queue: str = QUEUE
) -> Iterator[SyncJobClient]:
    """Yield a client for the queue, and close its connections at the end. One round trip, to see that Redis is there.

    The URLs are those of ``open_client``.

    Raises:
        QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
    """
    client = build_sync_client(redis_url, password=password, sentinel_password=sentinel_password, queue=queue)
    try:
        client.ping()
        yield client
    finally:
        client.close()
