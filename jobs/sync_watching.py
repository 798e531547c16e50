"""Waits for results without polling: Redis tells when one is written. For threads and greenlets, with no event loop.

All who wait share two connections. On one they ask, in turn; it tracks what it has read (client-side tracking), and so
makes the server tell on the other when a result that was looked for is written. On that other connection one of those
who wait reads, for all; when its own wait is over, it wakes another to go on. So there is no thread of ours, and a
greenlet blocks as its socket does. With one connection, as in ``watching``, threads would write and read at the same
time, which is not safe with TLS. Where the server, a proxy or an ACL refuses tracking, they poll.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from jobs.connection import is_outage
from jobs.primary import ROLE_EVERY
from jobs.results import LINGER, LOOK_AGAIN, RECONNECT_PAUSES, missing, poll_pauses
from jobs.tracking import PROOF_LIMIT, proof_key
from jobs.wire import RESULT_KEY

_PROOFS = 2
"""What is read when a change was made: the answer, and the word of it."""


class _Waiter:
    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.key = (RESULT_KEY + job_id).encode()
        self.is_told = False
        """Whether to look again: the result has changed, or a connection was lost."""
        self.bell = threading.Event()

    def tell(self) -> None:
        self.is_told = True  # before the bell: who hears it looks here
        self.bell.set()


class _Link:
    """The connections to ask and to be told on; they live and die together."""

    def __init__(self, redis: Redis) -> None:
        self.is_tracking = False
        """Whether changes are told; a proxy, an ACL, or a server before Redis 6 may refuse it."""
        self.used = time.monotonic()
        self._open = [_connected(redis, protocol=2)]
        try:
            self._begin_to_track(redis)
        except ResponseError as error:
            if is_outage(error):
                self.close()
                raise
            for told in self._open[1:]:
                told.disconnect()
        except BaseException:  # a greenlet that is killed, too
            self.close()
            raise

    def _begin_to_track(self, redis: Redis) -> None:
        told = _connected(redis, protocol=3)
        self._open.append(told)
        self._ask(("CLIENT", "TRACKING", "ON", "REDIRECT", told.handshake_metadata[b"id"], "NOLOOP"))
        self.is_tracking = self._is_told(told)

    def _is_told(self, told: Any) -> bool:  # noqa: ANN401 - redis-py's connections have no types
        """See that a change is told (``tracking``): of a key that we read on one connection and write on the other."""
        key = proof_key()
        self._ask(("EXISTS", key))
        told.send_command("SET", key, "", "PX", 1)
        end, answers = time.monotonic() + PROOF_LIMIT.total_seconds(), 0
        while (left := end - time.monotonic()) > 0 and told._parser.can_read(left):  # noqa: SLF001 - as in hear
            answer = told._parser.read_response()  # noqa: SLF001
            if isinstance(answer, ResponseError):
                return True  # not ours to write: nothing is known against it
            answers += 1
            if answers == _PROOFS:
                return True
        return False

    def look(self, queue: str, job_id: str) -> tuple[bytes | None, bytes | None]:
        """Return the job's place in the queue and its result. One round trip."""
        self.used = time.monotonic()
        # In this order: a job that has left the queue between the two has its result by then.
        score, data = self._ask(("ZSCORE", queue, job_id), ("GET", RESULT_KEY + job_id))
        return score, data

    def _ask(self, *commands: tuple[Any, ...]) -> list[Any]:
        asks = self._open[0]
        asks.send_packed_command(asks.pack_commands(commands))
        return [asks.read_response() for _ in commands]

    def hear(self, seconds: float) -> Sequence[bytes] | None:
        """Return the keys that have changed, none after so many seconds; ``None``: all may have."""
        told = self._open[1]
        try:
            # Not by the connection: it would connect again, silently, to where nothing is told.
            if not told._parser.can_read(seconds):  # noqa: SLF001
                return ()
            push = told._parser.read_response()  # noqa: SLF001
        except AttributeError as error:  # closed by another thread in this moment
            raise RedisConnectionError("the connection was closed") from error
        keys: Sequence[bytes] | None = push[1] if push[0] == b"invalidate" else ()
        return keys

    def close(self) -> None:
        for connection in self._open:
            connection.disconnect()


def _connected(redis: Redis, *, protocol: int) -> Any:  # noqa: ANN401 - redis-py's connections have no types
    pool = redis.connection_pool
    options = {"protocol": protocol, "retry": Retry(NoBackoff(), 0), "retry_on_error": [], "health_check_interval": 0}
    connection = pool.connection_class(**pool.connection_kwargs | options)
    connection.connect()
    return connection


class SyncResultWatch:
    """Waits for many results of one queue. Safe to share between threads or greenlets; raises redis-py's errors."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Connect to nothing yet; to where ``redis`` connects."""
        self._redis = redis
        self._queue = queue
        self._is_closed = False
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._asking = threading.Lock()
        """Held while somebody asks or connects."""
        self._lock = threading.Lock()
        """Held for a moment, to change what follows."""
        self._link: _Link | None = None
        self._waiters: dict[bytes, set[_Waiter]] = {}
        self._reader: _Waiter | None = None
        """Who reads what is told, for all."""

    def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait until the job has a result, and return it as it lies in Redis; ``end`` is in monotonic seconds.

        Raises:
            ResultMissingError: the job is neither queued nor answered, and not promised either.
            TimeoutError: there is none in time.
        """
        if self._pid != os.getpid():  # forked: locks and connections are the parent's
            self._begin()
        pauses = poll_pauses()
        with self._listening(job_id) as waiter:
            while True:
                score, data, is_tracked = self._look(waiter, end)
                if data is not None:
                    return data
                if score is None and not is_promised:
                    raise missing(job_id)
                pause = LOOK_AGAIN.total_seconds() if is_tracked else next(pauses)
                self._await_news(waiter, min(end, time.monotonic() + pause))
                if time.monotonic() >= end and not waiter.is_told:
                    raise TimeoutError

    @contextmanager
    def _listening(self, job_id: str) -> Iterator[_Waiter]:
        waiter = _Waiter(job_id)
        with self._lock:
            self._waiters.setdefault(waiter.key, set()).add(waiter)
        try:
            yield waiter
        finally:
            with self._lock:
                self._waiters[waiter.key].discard(waiter)
                if not self._waiters[waiter.key]:
                    del self._waiters[waiter.key]
                self._pass_reading_on()

    def _look(self, waiter: _Waiter, end: float) -> tuple[bytes | None, bytes | None, bool]:
        """Look, also after a lost connection; say whether we shall be told of changes."""
        for pause in (*RECONNECT_PAUSES, None):
            try:
                with self._asking:
                    return self._ask(waiter)
            except (RedisError, OSError) as error:
                if pause is None or self._is_closed or not is_outage(error) or time.monotonic() + pause > end:
                    raise
                time.sleep(pause)
        raise AssertionError  # the last attempt returns or raises

    def _ask(self, waiter: _Waiter) -> tuple[bytes | None, bytes | None, bool]:
        link = self._open()
        waiter.is_told = False  # before the question: whatever changes later is told
        try:
            score, data = link.look(self._queue, waiter.job_id)
        except BaseException:  # a greenlet that is killed, too: the answer would be taken for that of another question
            self._lose(link)
            raise
        return score, data, link.is_tracking

    def _open(self) -> _Link:
        if self._is_closed:
            raise RedisConnectionError("the client was closed")
        link = self._link
        # Something between us and Redis may have forgotten a connection on which nobody has waited.
        if link is not None and self._reader is None and time.monotonic() - link.used > LINGER.total_seconds():
            self._lose(link)
        if self._link is None:
            self._link = _Link(self._redis)
        return self._link

    def _await_news(self, waiter: _Waiter, until: float) -> None:
        """Return when the waiter is told something, or in time; meanwhile read for all, if nobody else does."""
        while not waiter.is_told and (left := until - time.monotonic()) > 0:
            with self._lock:
                link = self._link
                reads = self._reader is None and link is not None and link.is_tracking
                if reads:
                    self._reader = waiter
            if reads and link is not None:
                # Whoever reads looks at times: with that goes the question whether the server is a primary.
                self._read(link, waiter, min(until, time.monotonic() + ROLE_EVERY.total_seconds()))
                return
            waiter.bell.wait(left)
            waiter.bell.clear()

    def _read(self, link: _Link, waiter: _Waiter, until: float) -> None:
        try:
            while not waiter.is_told and (left := until - time.monotonic()) > 0:
                self._tell(link.hear(left))
        except (RedisError, OSError):
            self._lose(link)  # all look again; whoever cannot reach Redis says so
        except BaseException:
            self._lose(link)
            raise
        finally:
            with self._lock:
                self._reader = None
                self._pass_reading_on(besides=waiter)

    def _pass_reading_on(self, *, besides: _Waiter | None = None) -> None:
        """Wake one of those who wait, to read; the lock is held."""
        if self._reader is None:
            for waiters in self._waiters.values():
                for waiter in waiters:
                    if waiter is not besides:
                        waiter.bell.set()
                        return

    def _tell(self, keys: Sequence[bytes] | None) -> None:
        with self._lock:
            for key in list(self._waiters) if keys is None else keys:
                for waiter in self._waiters.get(key, ()):
                    waiter.tell()

    def _lose(self, link: _Link) -> None:
        with self._lock:
            if self._link is link:
                self._link = None
        link.close()
        self._tell(None)

    def close(self) -> None:
        """Close the connections; who still waits is told that Redis cannot be reached."""
        self._is_closed = True
        if self._link is not None and self._pid == os.getpid():
            self._lose(self._link)
