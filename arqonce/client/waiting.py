"""Waits for results without polling: Redis notifies of each one. For asyncio.

All waits share one connection (``direct``) with client-side tracking (Redis 6 and later). Reading the key of a missing
result makes the server send one notification when any client writes it; reading and tracking are one command, so no
change is missed. When the connection is lost, all waits read again on a new one. The first wait opens the connection;
it closes some time after the last. Where the server, a proxy or an ACL refuses tracking, each wait polls every 5 to
250 ms on the same connection. It also polls where tracking is accepted but no notification arrives (``tracking``).
"""

import asyncio
from collections import deque
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
"""Longest wait for a connection to Redis, in seconds."""

_SHORTEST = 1.0
"""Shortest wait for an answer of Redis, in seconds, even if the caller's timeout ends earlier."""


_AT_ONCE = 100
"""Most waits that read in one turn of the event loop, some 10 ms: thousands begin, or are notified, together."""


class _Turns:
    """Lets only so many tasks go on in one turn of the event loop, in the order in which they came."""

    def __init__(self) -> None:
        self._left = _AT_ONCE
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        """Return in this turn or, behind those who wait already, in a later one."""
        loop = asyncio.get_running_loop()
        if self._left == _AT_ONCE:
            loop.call_soon(self._begin)
        self._left -= 1
        if self._left < 0:
            turn = loop.create_future()
            self._waiting.append(turn)
            await turn

    def _begin(self) -> None:
        """Begin the next turn. Who was cancelled meanwhile needs none."""
        going = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        for turn in going:
            if not turn.done():
                turn.set_result(None)
        self._left = _AT_ONCE - len(going) - len(self._waiting)
        if going:
            asyncio.get_running_loop().call_soon(self._begin)


class ResultWatch:
    """Waits for many results of one queue on one connection. The methods raise redis-py's errors."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self._queue = queue
        self._connection = DirectConnection(redis, tracks=True)
        self._connection.on_change = self._ring
        self._connection.on_lost = self._ring_all
        self._bells: dict[bytes, set[asyncio.Event]] = {}
        self._turns = _Turns()
        self._closing: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._proof = TrackingProof(self._connection, redis, self._poll)
        self._checking: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    async def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait for the job's result and return its raw bytes. ``end`` is a time of the event loop, in seconds.

        Raises:
            ResultMissingError: the job is not queued, has no result, and is not promised.
            TimeoutError: no result in time.
        """
        loop, pauses = asyncio.get_running_loop(), poll_pauses()
        looked_on, is_doubted = None, False
        await self._turns.take()
        with self._listening(job_id) as bell:
            while True:
                was_told = bell.is_set()
                bell.clear()
                score, data, wire = await self._look(job_id, end)
                if data is not None:
                    # On one connection, the notification arrives before the answer: tracking does not work.
                    if wire is looked_on and not (was_told or bell.is_set()):
                        self._proof.fail(NOT_TOLD)
                    return data
                if score is None and not is_promised:
                    if is_doubted:
                        raise missing(job_id)
                    is_doubted = True
                    self._connection.doubt_role()  # a replica may lag behind
                    continue
                looked_on = wire if self._is_told else None
                pause = next(pauses) if looked_on is None else LOOK_AGAIN.total_seconds()
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(end, loop.time() + pause)):
                        await bell.wait()
                if loop.time() >= end and not bell.is_set():
                    raise TimeoutError
                await self._turns.take()

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
        """Return the job's score in the queue, its result, and the connection that was used.

        After a lost connection, retries for about a second.
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
        """Do the same without a retry. One round trip."""
        if self._is_closed:
            raise RedisConnectionError(CLOSED)
        try:
            now = asyncio.get_running_loop().time()
            async with asyncio.timeout_at(max(min(end, now + _SILENCE), now + _SHORTEST)):
                wire = await self._connection.open()
            self._proof.begin(wire)
            async with asyncio.timeout_at(max(end, now + _SHORTEST)):
                # In this order: a job that leaves the queue between the two commands has its result by then.
                score, data = await self._connection.ask(("ZSCORE", self._queue, job_id), ("GET", RESULT_KEY + job_id))
        except TimeoutError as error:
            raise RedisTimeoutError("Redis did not answer in time") from error
        return score, data, wire

    @property
    def _is_told(self) -> bool:
        """Whether Redis notifies of changes, as far as is known."""
        return self._connection.is_tracking and self._proof.failure is None

    def _poll(self) -> None:
        """Make all waits poll: notifications do not arrive."""
        tell_once(self._proof.failure)
        self._ring_all()

    def _check_later(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(ROLE_EVERY.total_seconds(), self._check)

    def _check(self) -> None:
        """While a job is waited for, check that the server is a primary: a replica may receive no more results."""
        self._checking = None
        if self._bells and not self._is_closed:
            self._check_later()
            if self._connection.is_open and (self._asking is None or self._asking.done()):
                self._asking = asyncio.create_task(self._see_role(), name="ask for the role")

    async def _see_role(self) -> None:
        with suppress(RedisError, OSError):  # a closed connection wakes all waits
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
        """Close the connection, and wait until its tasks have ended."""
        await self._proof.aclose()
        self.close()
        await self._connection.aclose()

    def close(self) -> None:
        """Close the connection. Waits still in progress raise a connection error."""
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
