"""Finds queues that only Redis knows: those of producers that have misspelt a name, or whose workers are gone.

There is no list of queues, and a search of all keys takes long where many jobs wait. So each look reads some thousand
keys, and the next one goes on from there. A sorted set is taken for a queue if one of its first members has a message:
what other programs have in Redis is none. Changes nothing.
"""

from collections.abc import Collection, Sequence

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from arqonce.wire.bounds import is_name
from arqonce.wire.keys import ABORT_KEY, JOB_KEY, leases_key

_COUNT, _STEPS = 500, 4
"""Keys of one round trip, in which Redis does nothing else (1 ms), and round trips of one look."""

_PROBED = 3
"""Members of a sorted set whose messages are looked for."""

_MOST = 20
"""Queues that are found at most: anybody who enqueues may make any number of them."""

_OURS = "arqonce:"


class QueueSearch:
    """Looks at a part of the keys each time."""

    def __init__(self, redis: Redis, *, count: int = _COUNT, steps: int = _STEPS) -> None:
        """Begin with the first key."""
        self._redis = redis
        self._count = count
        self._steps = steps
        self._cursor = 0
        self._found: Sequence[str] = ()

    async def look(self, known: Collection[str]) -> Sequence[str]:
        """Return the queues with jobs that were found so far, without the ``known`` ones. Up to six round trips.

        It finds no queue if this user of Redis may not search.

        Raises:
            RedisError: Redis cannot be asked.
        """
        try:
            names = [*self._found, *await self._next()]
        except NoPermissionError:
            return ()
        new = [name for name in dict.fromkeys(names) if name not in known and _may_be_queue(name)]
        self._found = (await self._queues_among(new))[:_MOST]
        return self._found

    async def _next(self) -> list[str]:
        """Return the names of the next sorted sets."""
        names: list[bytes] = []
        for _ in range(self._steps):
            self._cursor, found = await self._redis.scan(self._cursor, count=self._count, _type="zset")
            names += found
            if not self._cursor:
                break
        return [name.decode(errors="replace") for name in names]

    async def _queues_among(self, names: Sequence[str]) -> list[str]:
        if not names:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.zrange(name, 0, _PROBED - 1)
                pipe.zcard(leases_key(name))
            answers = await pipe.execute(raise_on_error=False)
        # An error: it is no sorted set any more, or this user may not read it.
        members = {
            name: ids
            for name, ids, leases in zip(names, answers[::2], answers[1::2], strict=True)
            if isinstance(leases, int) and isinstance(ids, list) and ids
        }
        async with self._redis.pipeline(transaction=False) as pipe:
            for ids in members.values():
                pipe.exists(*(JOB_KEY.encode() + job_id for job_id in ids))
            counts = await pipe.execute(raise_on_error=False)
        return [name for name, count in zip(members, counts, strict=True) if isinstance(count, int) and count]


def _may_be_queue(name: str) -> bool:
    return is_name(name) and name != ABORT_KEY and not name.startswith(_OURS) and not name.endswith(leases_key(""))
