"""How often a worker says what it does, and until when it is listed."""

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from arqonce.connection.direct import DirectConnection
from arqonce.connection.presence import (
    SHOWN_EVERY,
    SHOWN_IDLE_EVERY,
    WORKERS_KEY,
    LiveWorker,
    announce,
    live_workers,
    order_quiet,
)
from arqonce.engine.presence import Presence
from tests.lines import show

WORKER = LiveWorker("1", "host", 1, ["arq:queue"])


class _Worker:
    """One that is idle or not, and hears orders."""

    def __init__(self, redis: Redis, line: DirectConnection) -> None:
        self.is_idle = True
        self.orders: list[bool] = []
        self.presence = Presence(redis, line, ["arq:queue"], doing=dict, obey=self._obey, is_idle=lambda: self.is_idle)

    def _obey(self, quiet: bool) -> bool:  # noqa: FBT001 - an order's value
        self.orders.append(quiet)
        return False


@pytest.fixture
async def worker(redis: Redis) -> AsyncIterator[_Worker]:
    """Yield an idle worker that has said so."""
    line = DirectConnection(redis)
    worker = _Worker(redis, line)
    await worker.presence.do()
    yield worker
    await line.aclose()


async def test_an_idle_worker_says_little_until_it_has_a_job(worker: _Worker) -> None:
    """And after its last one: what it has said last is that it works."""
    waits = [worker.presence.due_in()]
    for is_idle in (False, True):
        worker.is_idle = is_idle
        waits.append(worker.presence.due_in())
        worker.presence.look_for_orders()
        await worker.presence.do()
        waits.append(worker.presence.due_in())

    seldom = [wait > SHOWN_EVERY.total_seconds() for wait in waits]
    assert seldom == [True, False, False, False, True]


async def test_an_idle_worker_reads_its_order_when_it_was_notified(worker: _Worker, redis: Redis) -> None:
    """Not each time: that would be half of what an idle fleet asks of Redis."""
    await order_quiet(redis, worker.presence.worker, quiet=True)
    worker.presence._shown_at -= SHOWN_IDLE_EVERY.total_seconds()
    await worker.presence.do()
    before = list(worker.orders)

    worker.presence.look_for_orders()
    await worker.presence.do()

    assert (before, worker.orders) == ([], [True])


async def test_a_worker_that_has_fallen_silent_is_not_listed(redis: Redis) -> None:
    """It counts as alive for as long as it says what it does, and a short time after it was announced."""
    await announce(redis, WORKER)
    new = await live_workers(redis)
    await redis.zincrby(WORKERS_KEY, -120_000, WORKER.member)  # announced two minutes ago
    silent = await live_workers(redis)
    await show(redis, WORKER, {})

    assert (new, silent) == ([WORKER], [])
    assert await live_workers(redis) == [WORKER]
