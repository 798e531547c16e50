"""Notices when Redis may have lost jobs: wiped, restarted, or another server since a failover."""

from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.redis import is_outage
from arqonce.ledger.outbox import database_identity, next_epoch

_UNNAMED = "unnamed"
"""Stands for the process where the server does not name it."""

_KEY = "arqonce:epoch:"
"""Holds ``<run_id of the server>:<epoch>``; after the prefix, the database and the queue."""

_AGREE = """
local stored = redis.call('GET', KEYS[1])
if stored and string.sub(stored, 1, #ARGV[1]) == ARGV[1] then return stored end
redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2])
return ARGV[1] .. ARGV[2]
"""
"""Relays that notice together share the epoch of the first: jobs are sent once, not once for each relay."""


class RedisEpoch:
    """The number of the present epoch.

    The key is missing: Redis was wiped. It has the ``run_id`` of another process: Redis was restarted, perhaps from an
    older state, or a replica took over. Both begin an epoch, in which every job that was sent before and has not ended
    is sent again. A lost connection alone means neither. A single lost key is found by age (``ledger/outbox.py``).

    Managed servers may leave ``run_id`` out of INFO, or refuse INFO. Then ``master_replid`` stands for it: it changes
    when a replica takes over and at most restarts, but not at one from a file that has it (RDB). Without either, only
    a missing key begins an epoch, and what a restart or a failover has lost is found by age.
    """

    def __init__(self, redis: Redis, sessions: async_sessionmaker[AsyncSession], queue: str) -> None:
        """Ask nothing yet."""
        self._redis = redis
        self._sessions = sessions
        self._queue = queue
        self._key = ""
        self._agree = redis.register_script(_AGREE)

    async def read(self) -> int:
        """Return the epoch, and begin one if Redis is not what it was. One round trip to Redis.

        At the first time one to PostgreSQL besides, and for a new epoch one to each.
        """
        if not self._key:
            async with self._sessions() as session:
                self._key = f"{_KEY}{await database_identity(session)}:{self._queue}"
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(self._key)
            pipe.info("server")
            stored, server = await pipe.execute(raise_on_error=False)
        if isinstance(stored, Exception):
            raise stored
        process = f"{await self._process(server)}:".encode()
        return _number(stored, process) or await self._begin(process)

    async def _process(self, server: dict[str, Any] | Exception) -> str:
        """Return what names the server's process, or comes nearest. One round trip more where it has no ``run_id``."""
        if isinstance(server, dict) and (found := server.get("run_id")):
            return str(found)
        if isinstance(server, Exception) and is_outage(server):
            raise server
        with suppress(ResponseError):  # INFO is not allowed
            if found := (await self._redis.info("replication")).get("master_replid"):
                return str(found)
        return _UNNAMED

    async def _begin(self, process: bytes) -> int:
        async with self._sessions.begin() as session:
            number = await next_epoch(session)
        agreed = await self._agree(keys=[self._key], args=[process, number])
        return _number(agreed, process) or number


def _number(stored: bytes | None, process: bytes) -> int | None:
    if stored is None or not stored.startswith(process):
        return None
    number = stored.removeprefix(process)
    return int(number) if number.isdigit() else None
