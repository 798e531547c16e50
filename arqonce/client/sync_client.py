"""Enqueues jobs and waits for their results, from threads and greenlets: for Django, Flask, scripts and gevent.

The names are those of ``client``. No event loop and no thread of ours; two connections, shared by all who call.
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
from arqonce.client.sync_waiting import SyncResultWatch
from arqonce.connection.redis import build_sync_redis
from arqonce.connection.sync_direct import SyncDirectConnection
from arqonce.connection.url import with_sentinel_password
from arqonce.payloads import Payload
from arqonce.wire.keys import QUEUE
from arqonce.wire.status import JobStatus

ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class SyncJobHandle(Handle[ResultT]):
    """A job that was enqueued, by this call or by an earlier one with the same key."""

    _client: "SyncJobClient" = field(kw_only=True, repr=False)

    def result(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> ResultT:
        """Wait for the result, for 30 s unless ``timeout`` says otherwise: in seconds, from this call on.

        ``None`` waits for ever, 0 only looks.

        Does not poll: Redis tells when there is a result (Redis 6, and the right to CLIENT TRACKING). One round trip at
        the beginning and one at the end, on one connection for all who wait on this client. While Redis is silent, the
        timeout may be overrun by 1 s, the shortest wait for one answer, and by 5 s more for connecting.
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
        return self._read(self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves

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

    def abort(self, *, timeout: float | timedelta | None = RESULT_TIMEOUT) -> bool:
        """Ask for the job's end and wait for it; say whether it was aborted. Nothing of an aborted job takes effect.

        ``False``: it had ended already, or was quicker. Two round trips, and those of ``result``. Needs the right to
        write ``arq:abort``, which the user ``operator`` of ``deploy/`` has and ``producer`` has not. A promised job
        that is not due is aborted as ``JobHandle.abort`` says.

        Raises:
            ResultMissingError: the job is neither queued nor answered.
            TimeoutError: it has not ended in time; the request stands.
            QueueUnavailableError: Redis cannot be reached.
        """
        seconds = seconds_of(timeout)
        self._client._ask_to_abort(self.job_id, is_promised=self._is_promised)  # noqa: SLF001 - two halves
        return self._was_aborted(self._client._wait(self.job_id, seconds, is_promised=self._is_promised))  # noqa: SLF001 - two halves


class SyncJobClient(ExplainedClient):
    """Enqueues jobs and waits for their results. Safe to share between threads or greenlets, and after a fork.

    Connects at its first call, also in a fork: a module of Django or Flask may construct it and keep it as long as the
    process lives. ``with SyncJobClient(url) as client`` first sees that Redis is there, with one round trip, and closes
    the client at the end.
    """

    def __init__(
        self, url: str, *, password: str | None = None, sentinel_password: str | None = None, queue: str = QUEUE
    ) -> None:
        """Open no connection. The URLs are those of ``JobClient``.

        Raises:
            QueueUnavailableError: the URL is none of Redis'; the text names the cure.
        """
        url = with_sentinel_password(url, sentinel_password)
        super().__init__(url, queue=queue)
        self._redis = build_sync_redis(url, password=password)
        self._direct = SyncDirectConnection(self._redis)
        self._watch = SyncResultWatch(self._redis, queue)

    def __enter__(self) -> Self:
        """See that Redis is there.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
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
        """End all waiting, close the connections, and take no more calls. May be called again."""
        self._is_closed = True
        self._direct.close()
        self._watch.close()
        self._redis.close()

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
        self,
        payloads: Iterable[Payload[ResultT]],
        *,
        keys: Sequence[str] | None = None,
        delay: timedelta | None = None,
        at: datetime | None = None,
    ) -> list[SyncJobHandle[ResultT]]:
        """Enqueue many jobs, as ``enqueue`` does; one round trip for each 500, or each 4 MiB of messages.

        Raises:
            InvalidMessageError: a payload, key, time or size is wrong; nothing was sent.
            QueueUnavailableError: Redis cannot be reached; a part may be queued: call again with the same keys.
        """
        return self._send(Request.of(payloads, keys, delay=delay, at=at))

    @overload
    def handle(self, job: Promised[ResultT], /) -> SyncJobHandle[ResultT]: ...

    @overload
    def handle(self, job: type[Payload[ResultT]], job_id: str, /) -> SyncJobHandle[ResultT]: ...

    def handle(
        self, job: Promised[ResultT] | type[Payload[ResultT]], job_id: str | None = None, /
    ) -> SyncJobHandle[ResultT]:
        """Return the handle of a job that was enqueued elsewhere, as ``JobClient.handle`` does. No round trip.

        Raises:
            InvalidMessageError: that cannot be a job's id, or is no kind of payload.
        """
        return SyncJobHandle(*found_again(job, job_id), _client=self)

    def ping(self) -> None:
        """See that Redis is there. One round trip.

        Raises:
            QueueUnavailableError: Redis cannot be reached or refuses us; the text names the cure.
        """
        with self._explained():
            self._direct.ask(("PING",))

    def _send(self, request: Request[ResultT]) -> list[SyncJobHandle[ResultT]]:
        added = [one for call in request.calls(self._queue) for one in self._call(call)]
        return [SyncJobHandle(*fields, _client=self) for fields in request.handled(added)]

    def _call(self, call: Call) -> list[int]:
        with self._explained():
            added: list[int] = self._direct.run(ENQUEUE, call.keys, call.arguments)
            return added

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
