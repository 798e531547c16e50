"""How many jobs of each queue wait, run, are promised or dead. The servers are asked when somebody wants to know."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.clock import clock_offset, read_clock
from arqonce.connection.presence import live_workers, unserved
from arqonce.connection.queue_status import QueueStatus, read_queue_status
from arqonce.ledger.figures import LedgerCounts, count_in_ledger
from arqonce.ledger.outbox import queues_behind
from arqonce.metrics import families
from arqonce.metrics.store import Samples
from arqonce.relay.unserved import BEHIND

_LIMIT = timedelta(seconds=2)
"""How long a server may take. Prometheus waits 10 s for a scrape by default."""

_FRESH = timedelta(seconds=2)
"""How long figures are shown again, whoever asks."""

_SHARE = 20
"""Figures are shown again for at least this many times the time that it took to read them: so they cost the servers 5 %
of one connection at most."""

_LONGEST_GAP = timedelta(seconds=10)
"""Longest time for which figures are shown that a server has not completed in time: it may be back long before."""

_MOST_OTHERS = 20
"""Most queues that nobody serves of which a process ever shows figures: producers choose their names."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.operations.queue_figures")


class Service(NamedTuple):
    """Who serves a queue."""

    workers: int
    """Workers of ours, as they have announced themselves."""

    is_served: bool
    """Whether there is one, or one of arq's."""


@dataclass
class Figures:
    """What could be read, by queue. What could not is missing: old figures would be wrong ones."""

    queues: dict[str, QueueStatus] = field(default_factory=dict)
    services: dict[str, Service] = field(default_factory=dict)
    ledger: dict[str, LedgerCounts] = field(default_factory=dict)
    offsets: dict[str, float] = field(default_factory=dict)
    """How far the clock of each server is ahead of ours, at least, in seconds."""

    def samples(self) -> Samples:
        """Return them as metrics."""
        samples: Samples = {}
        for queue, status in self.queues.items():
            samples[families.WAITING.name, (queue,)] = [float(status.waiting)]
            samples[families.DEFERRED.name, (queue,)] = [float(status.deferred)]
            samples[families.RUNNING.name, (queue,)] = [float(status.running)]
            samples[families.OLDEST.name, (queue,)] = [_age(status)]
            samples[families.WAITING_FOR_PERMIT.name, (queue,)] = [float(status.parked)]
            samples[families.HELD.name, (queue,)] = [float(status.held)]
            samples[families.PAUSED.name, (queue,)] = [float(status.paused)]
        for queue, service in self.services.items():
            samples[families.WORKERS.name, (queue,)] = [float(service.workers)]
            samples[families.SERVED.name, (queue,)] = [float(service.is_served)]
        for queue, found in self.ledger.items():
            samples[families.PROMISED.name, (queue,)] = [float(found.promised)]
            samples[families.OVERDUE.name, (queue,)] = [float(found.overdue)]
            samples[families.LETTERS.name, (queue,)] = [float(found.dead)]
        for server, offset in self.offsets.items():
            samples[families.CLOCK.name, (server,)] = [offset]
        return samples

    def as_json(self) -> dict[str, object]:
        """Return them for scaling: the sums of all queues, and each queue. ``None``: PostgreSQL did not answer."""
        each = list(self.queues.values())
        sums = QueueStatus(
            waiting=sum(status.waiting for status in each),
            deferred=sum(status.deferred for status in each),
            running=sum(status.running for status in each),
            oldest_waiting=max((status.oldest_waiting or timedelta(0) for status in each), default=None),
            parked=sum(status.parked for status in each),
            held=sum(status.held for status in each),
            paused=bool(each) and all(status.paused for status in each),
        )
        return _counts(sums) | {"queues": {queue: self._of(queue) for queue in self.queues}}

    def _of(self, queue: str) -> dict[str, object]:
        service, ledger = self.services[queue], self.ledger.get(queue)
        return _counts(self.queues[queue]) | {
            "workers": service.workers,
            "served": service.is_served,
            "promised": None if ledger is None else ledger.promised,
            "promised_overdue": None if ledger is None else ledger.overdue,
            "dead": None if ledger is None else ledger.dead,
        }


def _counts(status: QueueStatus) -> dict[str, object]:
    return {
        "waiting": status.waiting,
        "in_progress": status.running,
        "deferred": status.deferred,
        "oldest_waiting_seconds": round(_age(status), 3),
        "parked": status.parked,
        "held": status.held,
        "paused": status.paused,
    }


def _age(status: QueueStatus) -> float:
    return 0.0 if status.oldest_waiting is None else status.oldest_waiting.total_seconds()


class QueueReader:
    """Reads the figures of some queues, and shows them again while they are fresh. Belongs to one event loop."""

    def __init__(
        self, redis: Redis, queues: Sequence[str], sessions: async_sessionmaker[AsyncSession] | None = None
    ) -> None:
        """Read nothing yet. Without ``sessions`` there is no ledger."""
        self._redis = redis
        self._queues = queues
        self._sessions = sessions
        self._lock = asyncio.Lock()
        self._known = Figures()
        self._others: set[str] = set()
        self._fresh_until = 0.0

    async def read(self) -> Figures:
        """Return the figures, at most some seconds old.

        Per queue three round trips to Redis and one to PostgreSQL, and six and one more. Where promised jobs wait in
        queues that nobody relays, one more to PostgreSQL for each, and three to Redis.
        """
        async with self._lock:
            began = time.monotonic()
            if began >= self._fresh_until:
                found = Figures()
                _, behind = await asyncio.gather(self._ask_redis(found), self._ask_ledger(found))
                await self._ask_of_others(found, behind)
                self._known = found
                self._fresh_until = time.monotonic() + self._fresh_for(found, took=time.monotonic() - began)
            return self._known

    def _fresh_for(self, found: Figures, *, took: float) -> float:
        fresh = max(_FRESH.total_seconds(), _SHARE * took)
        is_complete = bool(found.queues) and (self._sessions is None or bool(found.ledger))
        return fresh if is_complete else min(fresh, _LONGEST_GAP.total_seconds())

    async def _ask_redis(self, found: Figures) -> None:
        """Ask who serves the queues, and how long they are. The user of a relay alone may only know the first."""
        with suppress(RedisError, OSError):  # metrics and probes tell of an outage
            async with asyncio.timeout(_LIMIT.total_seconds()):
                found.offsets["redis"] = (await read_clock(self._redis)).offset
                workers = Counter(queue for worker in await live_workers(self._redis) for queue in worker.queues)
                missing = await unserved(self._redis, self._queues)
                found.services = {queue: Service(workers[queue], queue not in missing) for queue in self._queues}
                found.queues = {queue: await read_queue_status(self._redis, queue) for queue in self._queues}

    async def _ask_of_others(self, found: Figures, behind: Mapping[str, LedgerCounts]) -> None:
        """Ask which of these other queues nobody serves: of them there is nobody else to tell."""
        new = [name for name in behind if name not in self._others][: _MOST_OTHERS - len(self._others)]
        names = [*(name for name in behind if name in self._others), *new]
        if not names:
            return
        with suppress(RedisError, OSError):
            async with asyncio.timeout(_LIMIT.total_seconds()):
                for name in await unserved(self._redis, names):
                    self._others.add(name)
                    found.services[name], found.ledger[name] = Service(0, is_served=False), behind[name]

    async def _ask_ledger(self, found: Figures) -> Mapping[str, LedgerCounts]:
        """Ask for the queues; return the same for others in which promised jobs wait for a relay."""
        behind: dict[str, LedgerCounts] = {}
        if self._sessions is None:
            return behind
        try:
            async with asyncio.timeout(_LIMIT.total_seconds()), self._sessions() as session:
                await session.connection()  # opened before the time is taken
                for queue in self._queues:
                    sent = time.time()
                    found.ledger[queue] = counted = await count_in_ledger(session, queue)
                    found.offsets["postgresql"] = clock_offset(counted.now, sent, time.time())
                others = [queue for queue in await queues_behind(session, BEHIND) if queue not in self._queues]
                for queue in others[:_MOST_OTHERS]:
                    behind[queue] = await count_in_ledger(session, queue)
        except (SQLAlchemyError, OSError) as error:
            _log.debug("no figures of the ledger", exc_info=error)
        return behind
