"""Which workers are alive, and which queues each of them serves: every worker says so in Redis from time to time.

``arqonce:workers`` is a sorted set. A member is one worker, as JSON; its score is until when it may be listed, in ms
since 1970 by the server's clock. So the clocks of the machines do not matter, and nothing has to be found by a scan.
Workers of arq's own class are not in it. They have a key for each queue, which arq's ``--check`` reads, too.

``arqonce:worker:<id>`` says what a worker does at the moment, as JSON; a worker is alive as long as it says so, which
is often while it works, and more rarely while it is idle and nothing changes. ``arqonce:quiet:<id>`` is an operator's
order to it: to take no more jobs, or to take jobs again; Redis notifies the worker of it. The worker remembers the
order; so it outlives a Redis that is emptied. ``arqonce:alarm`` changes when a relay has lost PostgreSQL: workers that
rest read it along with their order, are notified as well, and look for themselves.
"""

import json
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

from redis.asyncio import Redis

from arqonce.connection.clock import read_clock
from arqonce.wire.keys import to_ms

WORKERS_KEY = "arqonce:workers"

ALARM_KEY = "arqonce:alarm"

_ALARM_LASTS = timedelta(minutes=1)
"""How long an alarm keeps others from being given."""

ANNOUNCED_EVERY = timedelta(minutes=5)

SHOWN_EVERY = timedelta(seconds=5)
"""How often a worker says what it does, and looks for orders."""

SHOWN_IDLE_EVERY = timedelta(seconds=30)
"""How often it does so while it has no job and Redis notifies it of orders."""

MOST_SHOWN = 20
"""Most running jobs of a worker that it names."""

MOST_KINDS = 200
"""Most kinds of jobs that a worker names."""

_ORDER_LASTS = timedelta(hours=1)
"""How long an order waits for its worker."""

_LASTS = SHOWN_IDLE_EVERY * 3
"""How long a worker counts as alive after it has said what it does, or was announced: it may miss two."""

_LISTED = ANNOUNCED_EVERY * 3
"""How long an announcement lasts."""

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
        pipe.zadd(WORKERS_KEY, {worker.member: now + to_ms(_LISTED)})
        pipe.zremrangebyscore(WORKERS_KEY, "-inf", now)
        await pipe.execute()
    return offset


async def withdraw(redis: Redis, worker: LiveWorker) -> None:
    """Say that the worker has ended. One round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zrem(WORKERS_KEY, worker.member)
        pipe.delete(_doing_key(worker.id), order_key(worker.id))
        await pipe.execute()


class Shown(NamedTuple):
    """What a worker learns when it says what it does."""

    was_known: bool
    """Whether Redis knew it: else it was emptied."""

    order: bool | None
    """Whether to be quiet; ``None`` without an order, or if it was not read."""


class Line(Protocol):
    """A connection that may report changes of what was read on it."""

    async def together(self, *commands: tuple[str | float | bytes, ...]) -> list[Any]:
        """Send commands together and return their replies."""
        ...


async def show(line: Line, worker: LiveWorker, doing: Mapping[str, Any], *, reads_order: bool = True) -> Shown:
    """Say what the worker does, and look for orders. One round trip."""
    said = "SET", _doing_key(worker.id), json.dumps(doing), "PX", to_ms(_LASTS), "GET"
    if not reads_order:
        return Shown((await line.together(said))[0] is not None, None)
    before, (order, _) = await line.together(said, ("MGET", order_key(worker.id), ALARM_KEY))
    return Shown(before is not None, None if order is None else order == b"1")


async def give_alarm(redis: Redis) -> None:
    """Let resting workers look whether they have PostgreSQL. One round trip."""
    await redis.set(ALARM_KEY, b"", px=_ALARM_LASTS, nx=True)


async def order_quiet(redis: Redis, worker: LiveWorker, *, quiet: bool) -> None:
    """Order a worker to take no more jobs, or to take jobs again. One round trip.

    It obeys at once or, where Redis does not notify it, within ``SHOWN_EVERY``.
    """
    await redis.set(order_key(worker.id), b"1" if quiet else b"0", px=_ORDER_LASTS)


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


def order_key(worker_id: str) -> str:
    """Return the key of an operator's order to the worker."""
    return f"arqonce:quiet:{worker_id}"


async def live_workers(redis: Redis) -> list[LiveWorker]:
    """Return the workers that are alive. Three round trips."""
    now = (await read_clock(redis)).ms
    found = await redis.zrange(WORKERS_KEY, f"({now}", "+inf", byscore=True, withscores=True)  # type: ignore[arg-type] # scores
    listed = [(worker, until) for member, until in found for worker in _read([member])]
    if not listed:
        return []
    said = await redis.mget([_doing_key(worker.id) for worker, _ in listed])  # one command for a whole fleet
    new = now + to_ms(_LISTED - _LASTS)
    return [worker for (worker, until), text in zip(listed, said, strict=True) if text is not None or until > new]


async def unserved(redis: Redis, queues: Collection[str]) -> list[str]:
    """Return those of the queues that no worker serves, neither one of ours nor one of arq's. Up to four round trips.

    A killed worker of ours counts for another 90 s; one of arq's as long as its ``health_check_interval`` is.
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
    """Return the kinds of jobs that live workers of ours run from the queue. Four round trips.

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
