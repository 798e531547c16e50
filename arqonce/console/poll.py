"""One look at both servers for all who look at pages: every 2 s while somebody does, and none while nobody does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.queue_search import QueueSearch
from arqonce.connection.redis import explain
from arqonce.console.workers import Worker
from arqonce.control.workers import read_workers
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.tables import Pause
from arqonce.overview.looks import Looks, Sessions
from arqonce.overview.snapshot import QueueFigures, read_queues
from arqonce.overview.status import Ledger, read_ledger_state
from arqonce.wire.bounds import is_name

EVERY = timedelta(seconds=2)

_FRESH = timedelta(seconds=5)
"""Older readings are not shown: a page waits for the next one."""

_TESTED_EVERY = timedelta(seconds=10)
"""How often PostgreSQL is asked whether it can be written to and has all tables: a fault is shown so much later."""

_AFTER_LAST = timedelta(seconds=20)
"""How long servers are asked after the last page was read that has no script."""

_REDIS_LIMIT = timedelta(seconds=3)
"""Longest wait for Redis; for PostgreSQL it is the same (``overview.status``)."""

MOST_QUEUES = 30
"""Queues that are looked at: those of WORKER_QUEUE first, then those of live workers, then others with jobs."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What both servers said at one moment."""

    at: datetime
    ledger: Ledger
    queues: QueueFigures | None
    """``None`` if Redis could not be asked."""

    workers: Sequence[Worker] = ()
    redis_trouble: str | None = None
    """Why Redis could not be asked, or takes no writes, with the cure."""

    not_seen: Sequence[str] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    """All queues of which somebody knows: the settings, a live worker, a pause, a promise, or Redis alone."""

    @property
    def others(self) -> Sequence[str]:
        """Queues of which somebody knows beyond those that are looked at; none if Redis could not be asked."""
        return [] if self.queues is None else sorted(self.known - self.queues.queues.keys())

    @property
    def pauses(self) -> Sequence[Pause]:
        """What is paused; empty if PostgreSQL does not say."""
        figures = self.ledger.figures
        return (figures and figures.pauses) or ()

    @property
    def version(self) -> str:
        """A hash of what pages show; times since which something is so are no part of it."""
        figures, queues = self.ledger.figures, self.queues
        pauses = [(one.queue, one.job_name, one.until, one.reason) for one in self.pauses]
        schedules = [(one.name, one.paused_until) for one in (figures and figures.paused_schedules) or ()]
        losses = [(one.epoch, one.given_again) for one in (figures and figures.losses) or ()]
        counts = None if figures is None else (figures.promised, figures.dead, figures.done, figures.failed)
        waiting = None if queues is None else (queues.queues, queues.kinds, queues.unserved, queues.troubles)
        ends = [(one.live.id, one.state, one.said.running, one.said.jobs) for one in self.workers]
        troubles = (self.ledger.trouble, self.redis_trouble, list(self.not_seen))
        return sha256(repr((pauses, schedules, losses, counts, waiting, ends, troubles)).encode()).hexdigest()[:16]


class Servers:
    """Reads both servers, each within its limit. What is away is said, and is no error."""

    def __init__(
        self, redis: Redis, url: str, queues: Sequence[str], sessions: Sessions, database: DatabaseSettings
    ) -> None:
        """Ask for these queues, and for those that are found."""
        self._redis = redis
        self._search = QueueSearch(redis)
        self._url = url
        self._queues = queues
        self._sessions = sessions
        self._database = database
        self._tested_at = -float("inf")

    async def read(self) -> Reading:
        """Ask both: some ten statements in PostgreSQL; in Redis eight round trips, and seven for each queue."""
        looks = Looks(self._sessions)
        ledger = await self._read_ledger(looks)
        workers: Sequence[Worker] = ()
        queues, trouble, names = None, None, list(self._queues)
        try:
            async with asyncio.timeout(_REDIS_LIMIT.total_seconds()):
                workers = [Worker.read(*seen) for seen in await read_workers(self._redis)]
                names = self._names(workers, ledger)
                names += await self._search.look(names)
                queues = await read_queues(self._redis, names[:MOST_QUEUES], ledger.behind, looks)
                trouble = None if queues.refusal is None else str(explain(queues.refusal, self._url))
        except (RedisError, OSError) as error:
            trouble = str(explain(error, self._url))
        return Reading(
            at=datetime.now(UTC),
            ledger=ledger,
            queues=queues,
            workers=workers,
            redis_trouble=trouble,
            not_seen=looks.not_seen,
            known=frozenset(names),
        )

    async def _read_ledger(self, looks: Looks) -> Ledger:
        now = time.monotonic()
        is_tested = now - self._tested_at < _TESTED_EVERY.total_seconds()
        ledger = await read_ledger_state(looks, self._database, is_tested=is_tested)
        if ledger.trouble is not None:
            self._tested_at = -float("inf")
        elif not is_tested:
            self._tested_at = now
        return ledger

    def _names(self, workers: Sequence[Worker], ledger: Ledger) -> list[str]:
        figures = ledger.figures
        served = [queue for worker in workers for queue in worker.live.queues]
        paused = [pause.queue for pause in (figures and figures.pauses) or ()]
        promised = [one.queue for one in (figures and figures.promised) or ()]
        found = dict.fromkeys([*self._queues, *served, *paused, *promised, *ledger.behind])
        return [name for name in found if is_name(name)]


_END_LIMIT = timedelta(seconds=2)
"""How long the end waits for the present reading."""


class Poll:
    """Asks again and again while somebody looks. Belongs to one event loop."""

    def __init__(self, read: Callable[[], Awaitable[Reading]], *, every: timedelta = EVERY) -> None:
        """Ask nothing yet."""
        self._read = read
        self._every = every.total_seconds()
        self._last: Reading | None = None
        self._read_at = self._looked_at = -float("inf")
        self._viewers = 0
        self._current: asyncio.Future[Reading] | None = None
        """The reading that is under way, unless something was changed since it began."""
        self._coming: asyncio.Future[Reading] | None = None
        """The one after it."""
        self._soon = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    async def latest(self) -> Reading:
        """Return a reading of a few seconds' age at most."""
        self._looked_at = time.monotonic()
        if self._last is not None and time.monotonic() - self._read_at < _FRESH.total_seconds():
            self._start()
            return self._last
        return await self.next()

    async def next(self) -> Reading:
        """Return the next reading."""
        wanted = self._current or self._coming
        if wanted is None:
            wanted = self._coming = asyncio.get_running_loop().create_future()
        self._start()
        return await asyncio.shield(wanted)

    async def fresh(self) -> Reading:
        """Return a reading of now."""
        self.ask_anew()
        return await self.next()

    def ask_anew(self) -> None:
        """Forget what was read: somebody has just changed something."""
        self._last = self._current = None
        self._looked_at = time.monotonic()
        self._soon.set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Go on asking until the end of the context."""
        self._viewers += 1
        try:
            yield
        finally:
            self._viewers -= 1
            self._looked_at = time.monotonic()

    async def close(self) -> None:
        """Ask no more. Lets the present reading end if that takes not long: to cancel it may cost a connection."""
        self._is_closed = True
        self._soon.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_END_LIMIT.total_seconds())
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._go_on(), name="console-poll")

    async def _go_on(self) -> None:
        while not self._is_closed and self._is_wanted():
            self._soon.clear()
            current = self._current = self._coming or asyncio.get_running_loop().create_future()
            self._coming = None
            try:
                reading = await self._read()
            except Exception as error:
                self._fail(current, error)
                raise
            if self._current is current:
                self._last, self._read_at, self._current = reading, time.monotonic(), None
            current.set_result(reading)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await self._soon.wait()

    def _is_wanted(self) -> bool:
        is_looked_at = time.monotonic() - self._looked_at < _AFTER_LAST.total_seconds()
        return self._coming is not None or self._viewers > 0 or is_looked_at

    def _fail(self, current: asyncio.Future[Reading], error: Exception) -> None:
        for future in (current, self._coming):
            if future is not None:
                future.set_exception(error)
                future.exception()  # nobody may have waited for it
        self._current = self._coming = None
