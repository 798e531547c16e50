"""Which keys jobs have in Redis, without those by which a connection proves for a millisecond that it is told."""

import re

from redis.asyncio import Redis

_PROOF = re.compile(rb"arq:job:[0-9a-f]{32}")


async def keys_of_jobs(redis: Redis, pattern: str = "*") -> list[bytes]:
    """Return them in order."""
    return sorted(key for key in await redis.keys(pattern) if not _PROOF.fullmatch(key))
