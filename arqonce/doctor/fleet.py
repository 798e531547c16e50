"""Examines the live workers, by what they say of themselves in Redis: queues, clocks, event loops."""

from collections.abc import Iterable, Sequence

from redis.asyncio import Redis

from arqonce.connection.presence import live_workers, unserved, what_they_do
from arqonce.connection.queue_search import QueueSearch
from arqonce.connection.queue_status import read_queue_status
from arqonce.connection.worker_troubles import CLOCKS, DATABASES, LOOPS, troubles_of
from arqonce.doctor.finding import Finding, judged, well
from arqonce.settings.worker import SPARE_CONNECTIONS

_SEARCHED = 20
"""Round trips of the search for other queues."""


async def examine_fleet(redis: Redis, queues: Sequence[str]) -> list[Finding]:
    """Return what is to be said of the workers, of these queues, and of queues that Redis alone knows.

    Up to 28 round trips, and four for each unserved queue. Of what Redis has, 10,000 keys are searched, in steps of
    less than 1 ms.

    Raises:
        RedisError: Redis cannot be asked, or this user may not look.
    """
    workers = await live_workers(redis)
    said = await what_they_do(redis, workers)
    served = {queue for worker in workers for queue in worker.queues}
    others = await QueueSearch(redis, steps=_SEARCHED).look(served.union(queues))
    named = await unserved(redis, [*queues, *others])
    alone = [queue for queue in named if (await read_queue_status(redis, queue)).waiting]
    hosts = len({worker.host for worker in workers})
    cure = f"jobs wait in {', '.join(alone)}, which no worker serves: start workers, or correct their WORKER_QUEUE"
    number = f"{len(workers)} alive, {hosts} {'host' if hosts == 1 else 'hosts'}"
    findings = [judged("Workers: queues", number, warning=cure if alone else None)]
    troubles = troubles_of(zip(workers, said, strict=True))
    for check, good in (
        (CLOCKS, "as that of Redis"),
        (DATABASES, "one for each queue"),
        (LOOPS, "none was blocked of late"),
    ):
        found = [judged(f"Workers: {check}", one.what, warning=one.cure) for one in troubles if one.check == check]
        findings += found or [well(f"Workers: {check}", good)]
    return findings


async def connections_of_workers(redis: Redis, *, otherwise: int) -> int:
    """Return how many connections to PostgreSQL the live workers may open; without one, those of ``otherwise`` slots.

    Three round trips.

    Raises:
        RedisError: Redis cannot be asked, or this user may not look.
    """
    said = await what_they_do(redis, await live_workers(redis))
    return connections_of([(doing or {}).get("slots") for doing in said], otherwise=otherwise)


def connections_of(slots: Iterable[object], *, otherwise: int) -> int:
    """Return how many connections workers with so many slots may open: ``otherwise`` where that is not known."""
    known = [number if isinstance(number, int) and number > 0 else otherwise for number in slots]
    return sum(number + SPARE_CONNECTIONS for number in known or [otherwise])
