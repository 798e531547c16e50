"""Which workers are alive, and which queues each of them serves: every worker says so in Redis from time to time.

``arqonce:workers`` is a sorted set. A member is one worker, as JSON; its score is until when the worker counts as
alive, in ms since 1970 by the server's clock. So the clocks of the machines do not matter, and nothing has to be found
by a scan. Workers of arq's own class are not in it. They have a key for each queue, which arq's ``--check`` reads, too.

``arqonce:worker:<id>`` says what a worker does at the moment, as JSON. ``arqonce:quiet:<id>`` is an operator's order to
it: to take no more jobs, or to take jobs again. The worker remembers the order; so it outlives a Redis that is emptied.
"""

import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from redis.asyncio import Redis

from arqonce.connection.clock import read_clock
from arqonce.wire.keys import to_ms

WORKERS_KEY = "arqonce:workers"

ANNOUNCED_EVERY = timedelta(seconds=15)

SHOWN_EVERY = timedelta(seconds=5)
"""How often a worker says what it does, and looks for orders."""

MOST_SHOWN = 20
"""Most running jobs of a worker that it names."""

MOST_KINDS = 200
"""Most kinds of jobs that a worker names."""

_ORDER_LASTS = timedelta(hours=1)
"""How long an order waits for its worker."""

_LASTS = timedelta(seconds=45)
"""How long a worker counts as alive after its last announcement: it may miss two."""

_HEALTH_KEY = ":health-check"
"""What arq appends to the name of a queue."""


@dataclass(frozen=True)
class LiveWorker:
    """A worker process, as it describes itself."""

    id: str
    host: str
    pid: int
    queues: Sequence[str]

    @classmethod
    def here(cls, queues: Sequence[str]) -> "LiveWorker":
        """Describe a worker of this process."""
        return cls(uuid4().hex, socket.gethostname(), os.getpid(), list(queues))

    @property
    def member(self) -> str:
        """The member of the sorted set: the same text each time."""
        return json.dumps(asdict(self), sort_keys=True)


async def announce(redis: Redis, worker: LiveWorker) -> float:
    """Say that the worker is alive, and remove those that are not; return the offset of its clock. Two round trips."""
    now, offset = await read_clock(redis)
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zadd(WORKERS_KEY, {worker.member: now + to_ms(_LASTS)})
        pipe.zremrangebyscore(WORKERS_KEY, "-inf", now)
        await pipe.execute()
    return offset


async def withdraw(redis: Redis, worker: LiveWorker) -> None:
    """Say that the worker has ended. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zrem(WORKERS_KEY, worker.member)
        pipe.delete(_doing_key(worker.id), _order_key(worker.id))
        await pipe.execute()


class Shown(NamedTuple):
    """What a worker learns when it says what it does."""

    was_known: bool
    """Whether Redis knew it: else it was emptied."""

    order: bool | None
    """Whether to be quiet; ``None`` without an order."""


async def show(redis: Redis, worker: LiveWorker, doing: Mapping[str, Any]) -> Shown:
    """Say what the worker does, and look for orders. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.set(_doing_key(worker.id), json.dumps(doing), px=_LASTS, get=True)
        pipe.get(_order_key(worker.id))
        before, order = await pipe.execute()
    return Shown(before is not None, None if order is None else order == b"1")


async def order_quiet(redis: Redis, worker: LiveWorker, *, quiet: bool) -> None:
    """Order a worker to take no more jobs, or to take jobs again. It obeys within ``SHOWN_EVERY``. One round trip."""
    await redis.set(_order_key(worker.id), b"1" if quiet else b"0", px=_ORDER_LASTS)


async def what_they_do(redis: Redis, workers: Sequence[LiveWorker]) -> list[Mapping[str, Any] | None]:
    """Return what each worker has said, with ``seen``, how many seconds ago; ``None`` without it. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for worker in workers:
            pipe.get(_doing_key(worker.id))
            pipe.pttl(_doing_key(worker.id))
        answers = await pipe.execute()
    return [_doing(said, left) for said, left in zip(answers[::2], answers[1::2], strict=True)]


def _doing(said: bytes | None, left_ms: int) -> Mapping[str, Any] | None:
    try:
        doing = json.loads(said or b"null")
    except ValueError:
        return None
    return {**doing, "seen": max(0.0, (to_ms(_LASTS) - left_ms) / 1000)} if isinstance(doing, dict) else None


def _doing_key(worker_id: str) -> str:
    return f"arqonce:worker:{worker_id}"


def _order_key(worker_id: str) -> str:
    return f"arqonce:quiet:{worker_id}"


async def live_workers(redis: Redis) -> list[LiveWorker]:
    """Return the workers that are alive. Two round trips."""
    now = (await read_clock(redis)).ms
    return list(_read(await redis.zrange(WORKERS_KEY, f"({now}", "+inf", byscore=True)))  # type: ignore[arg-type] # scores


async def unserved(redis: Redis, queues: Collection[str]) -> list[str]:
    """Return those of the queues that no worker serves, neither one of ours nor one of arq's. Up to three round trips.

    A killed worker of ours counts for another 45 s; one of arq's as long as its ``health_check_interval`` is.
    """
    served = {queue for worker in await live_workers(redis) for queue in worker.queues}
    others = [queue for queue in queues if queue not in served]
    async with redis.pipeline(transaction=False) as pipe:
        for queue in others:
            pipe.exists(queue + _HEALTH_KEY)
        found = await pipe.execute(raise_on_error=False)
    # An error: an ACL forbids the key, so no worker of arq's that has the same user can write it.
    return [queue for queue, is_there in zip(others, found, strict=True) if is_there != 1]


async def kinds_of(redis: Redis, queue: str) -> set[str] | None:
    """Return the kinds of jobs that live workers of ours run from the queue. Three round trips.

    ``None`` if that is not known: none serves it, or one of them has not said so yet, or not all of them.
    """
    serving = [worker for worker in await live_workers(redis) if queue in worker.queues]
    said = [[str(kind) for kind in doing.get("kinds", ())] for doing in await what_they_do(redis, serving) if doing]
    if not serving or len(said) < len(serving) or any(len(kinds) >= MOST_KINDS for kinds in said):
        return None
    return {kind for kinds in said for kind in kinds}


def _read(members: Collection[bytes]) -> Iterator[LiveWorker]:
    for member in members:
        try:
            said = json.loads(member)
            yield LiveWorker(said["id"], said["host"], said["pid"], [str(queue) for queue in said["queues"]])
        except (ValueError, TypeError, KeyError):
            continue  # nothing of ours
