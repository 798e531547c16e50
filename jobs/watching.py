"""Waits for results without polling: Redis tells when one is written. For asyncio.

All who wait share one connection (``direct``) that tracks what it has read (client-side tracking, Redis 6 and later).
A look at a result that is not there yet makes the server tell of it, once, whoever writes it; looking and tracking are
one command, so nothing lies between them. When the connection is lost, all look again on a new one. It is opened by
the first who waits and closed some time after the last. Where the server, a proxy or an ACL refuses tracking, they
poll, each every 5 to 250 ms, on the same connection.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from jobs.connection import CLOSED, is_outage
from jobs.direct import DirectConnection
from jobs.results import LINGER, LOOK_AGAIN, RECONNECT_PAUSES, missing, poll_pauses
from jobs.wire import RESULT_KEY

_SILENCE = 5.0
"""Longest wait for an answer to a look, in seconds."""

_SHORTEST = 1.0
"""How long such an answer is waited for at least, also at the end of a call."""


class ResultWatch:
    """Waits for many results of one queue on one connection. The methods raise redis-py's errors."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Connect to nothing yet; to where ``redis`` connects."""
        self._queue = queue
        self._connection = DirectConnection(redis, tracks=True)
        self._connection.on_change = self._ring
        self._connection.on_lost = self._ring_all
        self._bells: dict[bytes, set[asyncio.Event]] = {}
        self._closing: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait until the job has a result, and return it as it lies in Redis; ``end`` is in the loop's seconds.

        Raises:
            ResultMissingError: the job is neither queued nor answered, and not promised either.
            TimeoutError: there is none in time.
        """
        loop, pauses = asyncio.get_running_loop(), poll_pauses()
        with self._listening(job_id) as bell:
            while True:
                bell.clear()
                score, data = await self._look(job_id, min(end, loop.time() + _SILENCE))
                if data is not None:
                    return data
                if score is None and not is_promised:
                    raise missing(job_id)
                pause = LOOK_AGAIN.total_seconds() if self._connection.is_tracking else next(pauses)
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(end, loop.time() + pause)):
                        await bell.wait()
                if loop.time() >= end and not bell.is_set():
                    raise TimeoutError

    @contextmanager
    def _listening(self, job_id: str) -> Iterator[asyncio.Event]:
        key, bell = (RESULT_KEY + job_id).encode(), asyncio.Event()
        if self._closing is not None:
            self._closing.cancel()
        self._bells.setdefault(key, set()).add(bell)
        try:
            yield bell
        finally:
            self._bells[key].discard(bell)
            if not self._bells[key]:
                del self._bells[key]
            if not self._bells:
                loop = asyncio.get_running_loop()
                self._closing = loop.call_later(LINGER.total_seconds(), self._connection.close)

    async def _look(self, job_id: str, end: float) -> tuple[bytes | None, bytes | None]:
        """Return the job's place in the queue and its result; also after a lost connection, for a second."""
        loop = asyncio.get_running_loop()
        for pause in RECONNECT_PAUSES:
            try:
                return await self._ask(job_id, end)
            except RedisError as error:
                is_late = isinstance(error, RedisTimeoutError) or loop.time() + pause > end
                if is_late or self._is_closed or not is_outage(error):
                    raise
            await asyncio.sleep(pause)
        return await self._ask(job_id, end)

    async def _ask(self, job_id: str, end: float) -> tuple[bytes | None, bytes | None]:
        """Return both. One round trip."""
        if self._is_closed:
            raise RedisConnectionError(CLOSED)
        try:
            async with asyncio.timeout_at(max(end, asyncio.get_running_loop().time() + _SHORTEST)):
                # In this order: a job that has left the queue between the two has its result by then.
                score, data = await self._connection.ask(("ZSCORE", self._queue, job_id), ("GET", RESULT_KEY + job_id))
        except TimeoutError as error:
            raise RedisTimeoutError("Redis did not answer in time") from error
        return score, data

    def _ring(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self._ring_all()
            return
        for key in keys:
            for bell in self._bells.get(key, ()):
                bell.set()

    def _ring_all(self) -> None:
        for bells in self._bells.values():
            for bell in bells:
                bell.set()

    def close(self) -> None:
        """Close the connection; who still waits is told that Redis cannot be reached."""
        self._is_closed = True
        if self._closing is not None:
            self._closing.cancel()
        self._connection.close()
        self._ring_all()
