"""Counts what a worker does, by queue, and writes it into Redis every 15 s (``connection.trend``)."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from redis.asyncio import Redis

from arqonce.connection.queue_status import read_queue_status
from arqonce.connection.trend import (
    DEAD,
    FAILED,
    REFUSED,
    RUN,
    SUCCEEDED,
    WAIT,
    WRITTEN_EVERY,
    Numbers,
    count_since,
    count_time,
    nothing_counted,
    write_counts,
    write_gauges,
)
from arqonce.metrics.store import times_of
from arqonce.work import Ended, ForwardingObserver, Job, Observer, Outcome, Postponed

T = TypeVar("T")


class TrendCounts(ForwardingObserver):
    """Hears what an engine does, counts it, and tells another observer. Some 1 µs for each job."""

    def __init__(self, queues: Sequence[str], other: Observer) -> None:
        """Begin with zeros."""
        super().__init__(other)
        self._queues = queues
        self._counted: defaultdict[str, Numbers] = defaultdict(nothing_counted)

    @property
    def has_counted(self) -> bool:
        """Whether anything was counted since the last call of ``take``."""
        return bool(self._counted)

    def take(self) -> dict[str, Numbers]:
        """Return what was counted since the last call, by queue; zeros for a queue of which nothing was."""
        counted, self._counted = self._counted, defaultdict(nothing_counted)
        return {queue: counted[queue] for queue in self._queues}

    def put_back(self, counted: dict[str, Numbers]) -> None:
        """Count it again: it could not be written."""
        for queue, numbers in counted.items():
            for at, number in enumerate(numbers):
                self._counted[queue][at] += number

    def claimed(self, jobs: Sequence[Job]) -> None:
        """Count how long the jobs have waited."""
        super().claimed(jobs)
        now_ms = time.time() * 1000 + jobs[0].claim.offset_ms
        for queue, some in self._by_queue(jobs, lambda job: job):
            count_since(self._counted[queue], WAIT, times_of([job.claim.score for job in some]), now_ms)

    def ran(self, jobs: Sequence[Job], seconds: float) -> None:
        """Count the run, for the queue of its first job."""
        super().ran(jobs, seconds)
        count_time(self._counted[jobs[0].claim.queue], RUN, 1000 * seconds)

    def concluded(self, ended: Sequence[tuple[Job, Outcome]]) -> None:
        """Count how the jobs have ended, or that their attempt has failed."""
        super().concluded(ended)
        for queue, some in self._by_queue(ended, lambda one: one[0]):
            _count_ends(self._counted[queue], [outcome for _, outcome in some])

    def _by_queue(self, items: Sequence[T], job_of: Callable[[T], Job]) -> Iterable[tuple[str, Sequence[T]]]:
        """Return the items of each queue. Costs nothing if there is but one."""
        if len(self._queues) == 1:
            return [(self._queues[0], items)]
        found: dict[str, list[T]] = {}
        for item in items:
            found.setdefault(job_of(item).claim.queue, []).append(item)
        return found.items()


def _count_ends(numbers: Numbers, outcomes: Sequence[Outcome]) -> None:
    """Count them: in one pass, of which a success that is one of many costs least."""
    succeeded = 0
    for outcome in outcomes:
        if type(outcome) is Ended:
            if outcome.succeeded:
                succeeded += 1
            else:
                numbers[DEAD if outcome.is_dead else REFUSED] += 1
        elif isinstance(outcome, Postponed) and outcome.counts:
            numbers[FAILED] += 1
    numbers[SUCCEEDED] += succeeded


class Trend:
    """The chore of one worker: writes what was counted, and measures the queues once a minute if it is the first one.

    Its methods raise redis-py's errors.
    """

    def __init__(
        self, redis: Redis, counts: TrendCounts, is_left_to_others: Callable[[], bool] = lambda: False
    ) -> None:
        """Write nothing yet. While ``is_left_to_others``, it writes only what was counted, and measures nothing."""
        self._redis = redis
        self._counts = counts
        self._is_left_to_others = is_left_to_others
        self._due = -math.inf

    async def do(self) -> None:
        """Write if that is due. One round trip for all queues, and four more for each that is to be measured."""
        if self.due_in() > 0:
            return
        due = await self.write()
        self._due = time.monotonic() + WRITTEN_EVERY.total_seconds()
        if due:
            await write_gauges(self._redis, {queue: await read_queue_status(self._redis, queue) for queue in due})

    async def write(self) -> list[str]:
        """Write what was counted; return the queues that nobody has measured in this minute. One round trip."""
        counted = self._counts.take()
        try:
            return await write_counts(self._redis, counted)
        except BaseException:
            self._counts.put_back(counted)
            raise

    def due_in(self) -> float:
        """Return in how many seconds it is due."""
        if self._is_left_to_others() and not self._counts.has_counted:
            return math.inf
        return self._due - time.monotonic()

    def hurry(self) -> None:
        """Wait for its turn as always: what was counted is kept."""
