"""Waits for results without polling: Redis tells when one is written. For threads and greenlets, with no event loop.

All who wait share one connection (``sync_wire``) that tracks what it has read (client-side tracking, Redis 6 and
later). A look at a result that is not there yet makes the server tell of it, once, whoever writes it. When the
connection is lost, all look again on a new one. Where the server, a proxy or an ACL refuses tracking, they poll.
"""

import time
from collections.abc import Iterator

from redis import Redis

from arqonce.client.answers import LOOK_AGAIN, missing, poll_pauses
from arqonce.connection.primary import ROLE_EVERY
from arqonce.connection.redis import is_outage
from arqonce.connection.sync_direct import SyncDirectConnection, question
from arqonce.connection.sync_wire import SILENCE, Wire
from arqonce.wire.keys import RESULT_KEY


class SyncResultWatch:
    """Waits for many results of one queue. Safe to share between threads or greenlets; raises redis-py's errors."""

    def __init__(self, redis: Redis, queue: str) -> None:
        """Connect to nothing yet; to where ``redis`` connects."""
        self._queue = queue
        self._connection = SyncDirectConnection(redis, tracks=True)

    def result_of(self, job_id: str, *, end: float, is_promised: bool) -> bytes:
        """Wait until the job has a result, and return it as it lies in Redis; ``end`` is in monotonic seconds.

        Raises:
            ResultMissingError: the job is neither queued nor answered, and not promised either.
            TimeoutError: there is none in time.
        """
        pauses = poll_pauses()
        looked_on: Wire | None = None

        def look(wire: Wire) -> tuple[bytes | None, bool]:
            nonlocal looked_on
            data, has_changed = self._look(wire, job_id, end, pauses, is_promised=is_promised)
            # On one connection, word of it comes before the answer. (Or another thread has read it between two looks:
            # then the new connection costs a few round trips.)
            if data is not None and wire is looked_on and not has_changed:
                wire.lose("it tells of no changes")  # the next one has to prove that it does
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
        """Return the result, or wait for news and say whether there are any."""
        key = RESULT_KEY + job_id
        with wire.listening(key.encode()) as bell:  # before the question: whatever changes later rings
            # In this order: a job that has left the queue between the two has its result by then.
            commands = (("ZSCORE", self._queue, job_id), ("GET", key))
            score, data = question(wire, commands, end)
            if data is None and score is None and not is_promised:
                wire.doubt_role()  # a replica lags behind
                score, data = question(wire, commands, end)
                if data is None and score is None:
                    raise missing(job_id)
            if data is None:
                pause = LOOK_AGAIN.total_seconds() if self._connection.is_tracking else next(pauses)
                # Whoever reads for all looks again after a turn, which asks whether the server is a primary still.
                wire.wait(bell, min(end, time.monotonic() + pause), turn=ROLE_EVERY.total_seconds())
        return data, bell.is_rung

    def close(self) -> None:
        """Close the connection; who still waits is told that Redis cannot be reached."""
        self._connection.close()
