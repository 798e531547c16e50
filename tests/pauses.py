"""What Redis says is paused."""

from redis.asyncio import Redis

from arqonce.connection.pauses import Paused, known_of, read_texts


async def read_paused(redis: Redis, queue: str) -> Paused:
    """Return it."""
    (text,) = await read_texts(redis, [queue])
    return known_of(text).paused or Paused()
