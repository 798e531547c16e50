"""Waits for results without polling: Redis tells when one is written. For asyncio.

All who wait share one connection (``direct``) that tracks what it has read (client-side tracking, Redis 6 and later).
A look at a result that is not there yet makes the server tell of it, once, whoever writes it; looking and tracking are
one command, so nothing lies between them. When the connection is lost, all look again on a new one. It is opened by
the first who waits and closed some time after the last. Where the server, a proxy or an ACL refuses tracking, they
poll, each every 5 to 250 ms, on the same connection. So they do where it is accepted and nothing comes (``tracking``).
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.client.answers import LOOK_AGAIN, missing, poll_pauses
from arqonce.connection.direct import DirectConnection
from arqonce.connection.primary import ROLE_EVERY
from arqonce.connection.redis import CLOSED, is_outage
from arqonce.connection.tracking import LINGER, NOT_TOLD, RECONNECT_PAUSES, TrackingProof, tell_once
from arqonce.wire.keys import RESULT_KEY

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
        self._proof = TrackingProof(self._connection, redis, self._poll)
        self._checking: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    async def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait until the job has a result, and return it as it lies in Redis; ``end`` is in the loop's seconds.

        Raises:
            ResultMissingError: the job is neither queued nor answered, and not promised either.
            TimeoutError: there is none in time.
        """
        loop, pauses = asyncio.get_running_loop(), poll_pauses()
        looked_on, is_doubted = None, False
        with self._listening(job_id) as bell:
            while True:
                was_told = bell.is_set()
                bell.clear()
                score, data, wire = await self._look(job_id, min(end, loop.time() + _SILENCE))
                if data is not None:
                    # On one connection, word of it comes before the answer.
                    if wire is looked_on and not (was_told or bell.is_set()):
                        self._proof.fail(NOT_TOLD)
                    return data
                if score is None and not is_promised:
                    if is_doubted:
                        raise missing(job_id)
                    is_doubted = True
                    self._connection.doubt_role()  # a replica lags behind
                    continue
                looked_on = wire if self._is_told else None
                pause = next(pauses) if looked_on is None else LOOK_AGAIN.total_seconds()
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
        self._check_later()
        try:
            yield bell
        finally:
            self._bells[key].discard(bell)
            if not self._bells[key]:
                del self._bells[key]
            if not self._bells:
                loop = asyncio.get_running_loop()
                self._closing = loop.call_later(LINGER.total_seconds(), self._connection.close)

    async def _look(self, job_id: str, end: float) -> tuple[bytes | None, bytes | None, object]:
        """Return the job's place in the queue, its result, and the connection that was asked.

        Also after a lost connection, for a second.
        """
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

    async def _ask(self, job_id: str, end: float) -> tuple[bytes | None, bytes | None, object]:
        """Return the same. One round trip."""
        if self._is_closed:
            raise RedisConnectionError(CLOSED)
        try:
            async with asyncio.timeout_at(max(end, asyncio.get_running_loop().time() + _SHORTEST)):
                wire = await self._connection.open()
                self._proof.begin(wire)
                # In this order: a job that has left the queue between the two has its result by then.
                score, data = await self._connection.ask(("ZSCORE", self._queue, job_id), ("GET", RESULT_KEY + job_id))
        except TimeoutError as error:
            raise RedisTimeoutError("Redis did not answer in time") from error
        return score, data, wire

    @property
    def _is_told(self) -> bool:
        """Whether changes are told, as far as is known."""
        return self._connection.is_tracking and self._proof.failure is None

    def _poll(self) -> None:
        """Let all look, and go on looking: nothing is told."""
        tell_once(self._proof.failure)
        self._ring_all()

    def _check_later(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(ROLE_EVERY.total_seconds(), self._check)

    def _check(self) -> None:
        """While somebody waits, see that the server is a primary: a replica may be told of no result any more."""
        self._checking = None
        if self._bells and not self._is_closed:
            self._check_later()
            if self._connection.is_open and (self._asking is None or self._asking.done()):
                self._asking = asyncio.create_task(self._see_role(), name="ask for the role")

    async def _see_role(self) -> None:
        with suppress(RedisError, OSError):  # a connection that is closed wakes all who wait
            await self._connection.ask()

    def _ring(self, keys: Sequence[bytes] | None) -> None:
        self._proof.hear(keys)
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

    async def aclose(self) -> None:
        """Close, and return when nothing is left of it."""
        await self._proof.aclose()
        self.close()
        await self._connection.aclose()

    def close(self) -> None:
        """Close the connection; who still waits is told that Redis cannot be reached."""
        self._is_closed = True
        self._proof.close()
        if self._closing is not None:
            self._closing.cancel()
        if self._checking is not None:
            self._checking.cancel()
        if self._asking is not None:
            self._asking.cancel()
        self._connection.close()
        self._ring_all()
