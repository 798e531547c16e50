"""Waits for results without polling: Redis notifies of each one. For threads and greenlets, with no event loop.

All waits share one connection (``sync_wire``) with client-side tracking (Redis 6 and later). Reading the key of a
missing result makes the server send one notification when any client writes it. When the connection is lost, all waits
read again on a new one. Where the server, a proxy or an ACL refuses tracking, they poll.
"""

import time
from collections.abc import Iterator

from redis import Redis

from arqonce.client.answers import LOOK_AGAIN, missing, poll_pauses
from arqonce.connection.primary import ROLE_EVERY
from arqonce.connection.redis import is_outage
from arqonce.connection.sync_direct import SHORTEST, SyncDirectConnection, question
from arqonce.connection.sync_wire import SILENCE, Wire
from arqonce.wire.keys import RESULT_KEY


class SyncResultWatch:
    """Waits for many results of one queue. Safe to share between threads or greenlets; raises redis-py's errors."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Use the address and options of ``redis``. Connects later."""
        self._queue = queue
        self._connection = SyncDirectConnection(redis, tracks=True)

    def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait for the job's result and return its raw bytes. ``end`` is a time of ``time.monotonic``, in seconds.

        Raises:
            ResultMissingError: the job is not queued, has no result, and is not promised.
            TimeoutError: no result in time.
        """
        pauses = poll_pauses()
        looked_on: Wire | None = None

        def look(wire: Wire) -> tuple[bytes | None, bool]:
            nonlocal looked_on
            data, has_changed = self._look(wire, job_id, end, pauses, is_promised=is_promised)
            # On one connection, the notification arrives before the answer, so tracking does not work. (Or another
            # thread read the key between two reads; then the new connection costs a few round trips.)
            if data is not None and wire is looked_on and not has_changed:
                wire.lose("it does not report changes")  # the next one has to prove that tracking works
            looked_on = None if has_changed or not self._connection.is_tracking else wire
            return data, has_changed

        while True:
            limit = min(end, time.monotonic() + SILENCE.total_seconds())
            data, has_changed = self._connection.again(look, limit, is_passing=is_outage)
            if data is not None:
                return data
            if not has_changed and time.monotonic() >= end:
                raise TimeoutError

    def _look(
        self, wire: Wire, job_id: str, end: float, pauses: Iterator[float], *, is_promised: bool
    ) -> tuple[bytes | None, bool]:
        """Return the result; if there is none, wait for a notification. Also return whether one arrived."""
        key = RESULT_KEY + job_id
        with wire.listening(key.encode()) as bell:  # before reading: every later change rings
            # In this order: a job that leaves the queue between the two commands has its result by then.
            commands = (("ZSCORE", self._queue, job_id), ("GET", key))
            last = max(end, time.monotonic() + SHORTEST.total_seconds())
            score, data = question(wire, commands, end, last=last)
            if data is None and score is None and not is_promised:
                wire.doubt_role()  # a replica may lag behind
                score, data = question(wire, commands, end, last=last)
                if data is None and score is None:
                    raise missing(job_id)
            if data is None:
                pause = LOOK_AGAIN.total_seconds() if self._connection.is_tracking else next(pauses)
                # The leader returns after ``turn`` and reads again, which also checks that the server is still primary.
                wire.wait(bell, min(end, time.monotonic() + pause), turn=ROLE_EVERY.total_seconds())
        return data, bell.is_rung

    def close(self) -> None:
        """Close the connection. Waits still in progress raise a connection error."""
        self._connection.close()
