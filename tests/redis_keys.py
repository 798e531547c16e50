"""Which keys jobs have in Redis: not the trend, the deputy's, nor those by which a connection proves it is told."""

import re

from redis.asyncio import Redis

_OTHERS = re.compile(rb"arq:job:[0-9a-f]{32}|arqonce:trend:.+|.+:deputy")


async def keys_of_jobs(redis: Redis, pattern: str = "*") -> list[bytes]:
    """Return them in order."""
    return sorted(key for key in await redis.keys(pattern) if not _OTHERS.fullmatch(key))
