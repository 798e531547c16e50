"""Finds out whether Redis, which answers, takes writes. Writes nothing."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from arqonce.connection.redis import is_refusal
from arqonce.wire.keys import aside_key


async def refused_write(redis: Redis) -> RedisError | None:
    """Return why Redis takes no writes: it is full, cannot save its data, or has lost its replicas. One round trip.

    Sends a write that changes nothing, to a key that operators may write. Reading succeeds in all these cases.

    Raises:
        RedisError: Redis cannot be asked, or this user may not write there.
    """
    try:
        await redis.zadd(aside_key("", ""), {"": 0}, xx=True)
    except RedisError as error:
        if is_refusal(error):
            return error
        raise
    return None
