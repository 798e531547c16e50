"""Finds live workers, and orders one of them to take no more jobs, or to take jobs again."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.connection.presence import SHOWN_EVERY, LiveWorker, live_workers, order_quiet, what_they_do
from arqonce.ledger.audit import record

_OBEYS_IN = SHOWN_EVERY * 2
"""How long a worker may take to say that it has obeyed."""

_LOOK_EVERY = timedelta(milliseconds=200)

Doing = Mapping[str, Any]


class Seen(NamedTuple):
    """A live worker, and what it has said that it does."""

    worker: LiveWorker
    doing: Doing | None
    """``None`` if it has not said anything yet."""


async def read_workers(redis: Redis) -> list[Seen]:
    """Return the live workers by host and process. Four round trips."""
    workers = sorted(await live_workers(redis), key=lambda worker: (worker.host, worker.pid))
    return [Seen(*pair) for pair in zip(workers, await what_they_do(redis, workers), strict=True)]


def matching(name: str, workers: Sequence[LiveWorker]) -> list[LiveWorker]:
    """Return the workers that a ``host:pid``, an id or the beginning of an id names."""
    found = [worker for worker in workers if name == f"{worker.host}:{worker.pid}"]
    # No name would be the beginning of every id: a script's variable that is not set would drain the only worker.
    return found or [worker for worker in workers if name and worker.id.startswith(name)]


async def record_order(session: AsyncSession, worker: LiveWorker, *, quiet: bool, who: str, why: str | None) -> None:
    """Put the order on record, before it is given. One round trip."""
    act, target = "workers drain" if quiet else "workers undrain", f"{worker.host}:{worker.pid} {worker.id}"
    await record(session, who=who, act=act, target=target, number=1, why=why)


async def give_order(redis: Redis, worker: LiveWorker, *, quiet: bool, limit: timedelta = _OBEYS_IN) -> Doing | None:
    """Give the order; return what the worker does when it has obeyed, ``None`` if it does not answer in time.

    One round trip, and one each 200 ms until it answers; it looks for orders every 5 s at least.
    """
    until = time.monotonic() + limit.total_seconds()
    await order_quiet(redis, worker, quiet=quiet)
    while time.monotonic() < until:
        (doing,) = await what_they_do(redis, [worker])
        if doing is not None and doing.get("state") == ("drained" if quiet else "working"):
            return doing
        await asyncio.sleep(_LOOK_EVERY.total_seconds())
    return None
