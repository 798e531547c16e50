"""Enqueues jobs and waits for their results, from threads and greenlets: for Django, Flask, scripts and gevent.

The names are those of ``client``. It starts no event loop and no thread. All callers share two connections.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self, TypeVar, overload

from pydantic import BaseModel

from arqonce.client.answers import RESULT_TIMEOUT, JobInfo, seconds_of
from arqonce.client.explained import ExplainedClient
from arqonce.client.requests import (
    Call,
    Handle,
    Promised,
    Request,
    abort_commands,
    at_once,
    found_again,
    look_commands,
    read_look,
)
from arqonce.client.sync_waiting import SyncResultWatch
from arqonce.connection.redis import build_sync_redis
from arqonce.connection.sync_direct import SyncDirectConnection
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.tracing import sending
from arqonce.wire.keys import QUEUE
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class SyncJobHandle(Handle[ResultT]):
    """A job that was enqueued by this call, or by an earlier one with the same key."""

    _client: "SyncJobClient" = field(kw_only=True, repr=False)

    def result(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> ResultT:
        """Wait for the result and return it. ``timeout`` is in seconds from this call, 30 by default.

        ``None`` waits for ever; 0 checks once.

        Does not poll: Redis notifies the client of the result (Redis 6, and the right to CLIENT TRACKING). One round
        trip at the beginning and one at the end, on one connection shared by all waits of this client. If Redis does
        not answer, the wait may exceed the timeout by 1 s, the shortest wait for one answer, and by 5 s for connecting.
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
        return self._read(self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves

    def status(self) -> JobStatus:
        """Return the job's status. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return self.info().status

    def info(self) -> JobInfo:
        """Return what Redis knows of the job: status, times, attempts. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached.
        """
        return self._client._info(self.job_id)  # noqa: SLF001 - two halves

    def abort(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> bool:
        """Request the job's abort, wait until it ends, and return whether it was aborted. An aborted job has no effect.

        Returns ``False`` if the job ended before the abort reached it. Two round trips, plus those of ``result``. Needs
        the right to write ``arq:abort``; of the users in ``deploy/``, ``operator`` has it and ``producer`` does not.
        For a promised job that is not due, see ``JobHandle.abort``.

        Raises:
            ResultMissingError: the job is not queued and has no result.
            TimeoutError: the job has not ended in time; the abort request stays in force.
            QueueUnavailableError: Redis cannot be reached.
        """
        seconds = seconds_of(timeout)
        self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return self._was_aborted(self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves


class SyncJobClient(ExplainedClient):
    """Enqueues jobs and waits for their results. Safe to share between threads or greenlets, and after a fork.

    Connects at its first call, also in a forked process: a module of Django or Flask may construct it and keep it for
    the life of the process. ``with SyncJobClient(url) as client`` checks that Redis answers, with one round trip, and
    closes the client at the end.
    """

    def __init__(
        self, url: str, *, password: str | None = None, sentinel_password: str | None = None, queue: str = QUEUE
    ) -> None:
        """Construct the client without connecting. Takes the same URLs as ``JobClient``.

        Raises:
            InvalidMessageError: no queue may have that name.
            QueueUnavailableError: the URL is not a Redis URL; the text names the cure.
        """
        url = with_sentinel_password(url, sentinel_password)
        super().__init__(url, queue=queue)
        self._redis = build_sync_redis(url, password=password)
        self._direct = SyncDirectConnection(self._redis)
        self._watch = SyncResultWatch(self._redis, queue)

    def __enter__(self) -> Self:
        """Check that Redis answers.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses the client; the text names the cure.
        """
        try:
            self.ping()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """End all waits, close the connections, and reject further calls. May be called again."""
        self._is_closed = True
        self._direct.close()
        self._watch.close()
        self._redis.close()

    def enqueue(  # noqa: PLR0913 - when, how often, until when
        self,
        payload: Payload[ResultT],
        *,
        key: str | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        unique_for: timedelta | None = None,
        expires: timedelta | datetime | None = None,
    ) -> SyncJobHandle[ResultT]:
        """Enqueue a job, as ``JobClient.enqueue`` does. One round trip.

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
            (handle,) = self._send(request)
            return handle

    def enqueue_many(  # noqa: PLR0913 - as enqueue
        self,
        payloads: Iterable[Payload[ResultT]],
        *,
        keys: Sequence[str] | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
        unique_for: timedelta | None = None,
        expires: timedelta | datetime | None = None,
    ) -> list[SyncJobHandle[ResultT]]:
        """Enqueue many jobs, as ``enqueue`` does. One round trip per 500 jobs, or per 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key, time or size is invalid; nothing was sent.
            QueueUnavailableError: Redis cannot be reached. Some jobs may be queued: call again with the same keys.
        """
        with sending("enqueue", self._queue) as span:
            request = at_once(
                Request.steps(payloads, keys, delay=delay, at=at, unique_for=unique_for, expires=expires, sending=span)
            )
            return self._send(request)

    @overload
    def handle(self, job: Promised[ResultT], /) -> SyncJobHandle[ResultT]: ...

    @overload
    def handle(
        self, job: type[Payload[ResultT]], job_id: str, /, *, is_promised: bool = False
    ) -> SyncJobHandle[ResultT]: ...

    def handle(
        self,
        job: Promised[ResultT] | type[Payload[ResultT]],
        job_id: str | None = None,
        /,
        *,
        is_promised: bool = False,
    ) -> SyncJobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere, as ``JobClient.handle`` does. No round trip.

        Raises:
            InvalidMessageError: the id is not valid, or the class is no payload.
        """
        return SyncJobHandle(*found_again(job, job_id, is_promised=is_promised), _client=self)

    def ping(self) -> None:
        """Check that Redis answers. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses the client; the text names the cure.
        """
        with self._explained():
            self._direct.ask(("PING",))

    def _send(self, request: Request[ResultT]) -> list[SyncJobHandle[ResultT]]:
        added = [one for call in request.calls(self._queue) for one in self._call(call)]
        return [SyncJobHandle(*fields, _client=self) for fields in request.handled(added)]

    def _call(self, call: Call) -> list[int | bytes]:
        with self._explained():
            answers: list[int | bytes] = self._direct.run(call.script, call.keys, call.arguments)
            return answers

    def _wait(self, job_id: str, seconds: float | None, *, is_promised: bool) -> bytes:
        end = math.inf if seconds is None else time.monotonic() + seconds
        with self._waiting(job_id, seconds, is_over=lambda: time.monotonic() >= end, is_promised=is_promised):
            return self._watch.result_of(job_id, end=end, is_promised=is_promised)

    def _info(self, job_id: str) -> JobInfo:
        with self._explained():
            answers = self._direct.transaction(*look_commands(self._queue, job_id))
        return read_look(job_id, answers)

    def _ask_to_abort(self, job_id: str, *, is_promised: bool) -> None:
        if commands := abort_commands(self._queue, self._info(job_id), is_promised=is_promised):
            with self._explained():
                self._direct.transaction(*commands)
