"""Detects that Redis may have lost jobs: it was flushed or restarted, or a failover has changed the server."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.redis import is_outage
from arqonce.ledger.outbox import database_identity, next_epoch

_UNNAMED = "unnamed"
"""Identifier of the server's process if the server does not report one."""

_KEY = "arqonce:epoch:"
"""Prefix of the key, which ends with the database and the queue. Its value is ``<run_id of the server>:<epoch>``."""

_AGREE = """
local agreed = {}
for at, key in ipairs(KEYS) do
    local stored = redis.call('GET', key)
    if not stored or string.sub(stored, 1, #ARGV[1]) ~= ARGV[1] then
        stored = ARGV[1] .. ARGV[2]
        redis.call('SET', key, stored)
    end
    agreed[at] = stored
end
return agreed
"""
"""Relays that detect a loss at once use the first one's epoch, so that jobs are dispatched once, not once per relay."""


class RedisEpochs:
    """The number of the current epoch of each queue.

    If the key is missing, Redis was flushed. If it has the ``run_id`` of another process, Redis was restarted, perhaps
    from an older state, or a replica took over. Either begins an epoch, in which every job that was dispatched before
    and has not ended is dispatched again. A lost connection alone begins none. A job whose key alone was lost is
    dispatched again when its retry time comes (``ledger/outbox.py``).

    Managed servers may omit ``run_id`` from INFO, or reject INFO. Then ``master_replid`` replaces it. That changes when
    a replica takes over and at most restarts, but not if the server loads it from an RDB file. Without either, only a
    missing key begins an epoch, and jobs lost by a restart or a failover are dispatched again at their retry time.
    """

    def __init__(self, redis: Redis, sessions: async_sessionmaker[AsyncSession], queues: Sequence[str]) -> None:
        """Query nothing yet."""
        self._redis = redis
        self._sessions = sessions
        self.queues = queues
        self.database: str | None = None
        """A name of the database, once it is known."""
        self._keys: Sequence[str] = ()
        self._agree = redis.register_script(_AGREE)

    async def read(self) -> Mapping[str, int]:
        """Return the epoch of each queue; begin a new one if Redis may have lost jobs. One round trip to Redis.

        The first call makes another one to PostgreSQL, and a new epoch one to each server.
        """
        if not self._keys:
            async with self._sessions() as session:
                self.database = await database_identity(session)
            self._keys = [f"{_KEY}{self.database}:{queue}" for queue in self.queues]
        async with self._redis.pipeline(transaction=False) as pipe:
            for key in self._keys:
                pipe.get(key)
            pipe.info("server")
            *stored, server = await pipe.execute(raise_on_error=False)
        for answer in stored:
            if isinstance(answer, Exception):
                raise answer
        process = f"{await self._process(server)}:".encode()
        known = [number for answer in stored if (number := _number(answer, process)) is not None]
        numbers = known if len(known) == len(stored) else await self._begin(process)
        return dict(zip(self.queues, numbers, strict=True))

    async def _process(self, server: dict[str, Any] | Exception) -> str:
        """Return an identifier of the server's process. One more round trip if the server reports no ``run_id``."""
        if isinstance(server, dict) and (found := server.get("run_id")):
            return str(found)
        if isinstance(server, Exception) and is_outage(server):
            raise server
        with suppress(ResponseError):  # INFO is not allowed
            if found := (await self._redis.info("replication")).get("master_replid"):
                return str(found)
        return _UNNAMED

    async def _begin(self, process: bytes) -> list[int]:
        async with self._sessions.begin() as session:
            number = await next_epoch(session)
        agreed = await self._agree(keys=self._keys, args=[process, number])
        return [_number(answer, process) or number for answer in agreed]


def _number(stored: bytes | None, process: bytes) -> int | None:
    if stored is None or not stored.startswith(process):
        return None
    number = stored.removeprefix(process)
    return int(number) if number.isdigit() else None
