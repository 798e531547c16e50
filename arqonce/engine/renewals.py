"""Leases beside the main loop: renewed from another event loop, given back from none, and what waits for Redis."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from redis import Redis as SyncRedis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.direct import DirectConnection
from arqonce.connection.redis import is_outage
from arqonce.engine.ends import arguments_of, give_back
from arqonce.engine.scripts.finish import FINISH
from arqonce.engine.scripts.leases import RENEW
from arqonce.wire.keys import cut_calls, leases_key
from arqonce.work import Claim

AnswerT = TypeVar("AnswerT")

RECONNECT_EVERY = timedelta(milliseconds=500)
"""How long to wait between looks at a server that is gone."""


class Renewals:
    """Renews leases over a connection of its own. Belongs to the event loop that first uses it."""

    def __init__(self, redis: Redis, names: Sequence[str], length_ms: int) -> None:
        """Connect later. ``names`` are those of the queues."""
        self._connection = DirectConnection(redis)
        self._names = names
        self._length_ms = length_ms

    async def renew(self, claims: Collection[Claim]) -> None:
        """Renew the leases. One round trip; raises redis-py's errors."""
        if claims:
            arguments = [self._length_ms, *owned(claims, self._names)]
            await self._connection.run(RENEW, keys_of(self._names), arguments)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


async def until_redis_answers(command: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    """Repeat the command however long Redis is gone: arq loses the outcome, and runs the job again."""
    while True:
        try:
            return await command()
        except (RedisError, OSError) as error:
            if not is_outage(error):
                raise  # the job's lease ends, and its receipt answers
            await asyncio.sleep(RECONNECT_EVERY.total_seconds())


def give_back_now(redis: SyncRedis, claims: Collection[Claim]) -> int:
    """Give jobs back from outside the event loop; return how many were still ours. One round trip for each 500."""
    script, names = redis.register_script(FINISH), sorted({claim.queue for claim in claims})
    jobs = [give_back(claim) for claim in claims]
    parts = [jobs[part] for part in cut_calls([0] * len(jobs))]
    return sum(sum(script(keys=keys_of(names), args=arguments_of(part, names))[:-1]) for part in parts)


def keys_of(names: Sequence[str]) -> list[str]:
    """Return the keys of these queues, as scripts take them."""
    return [key for name in names for key in (name, leases_key(name))]


def owned(claims: Collection[Claim], names: Sequence[str]) -> Iterator[Any]:
    """Yield queue's number, id and owner of each claim, as scripts take them."""
    for claim in claims:
        yield names.index(claim.queue) + 1
        yield claim.id
        yield claim.owner
