"""Puts a job back into the queue under its own id."""

from redis.asyncio import Redis

from arqonce.connection.clock import read_clock
from arqonce.wire.keys import EXPIRY, JOB_KEY, RESULT_KEY, RETRY_KEY


async def requeue(redis: Redis, queue: str, messages: dict[str, bytes]) -> None:
    """Queue the messages under their ids, due now by Redis's clock. Resets their attempts and deletes earlier results.

    Harmless for a job that is queued already or has taken effect: it gets the result from its receipt. Two round trips.
    """
    now = (await read_clock(redis)).ms
    async with redis.pipeline(transaction=True) as pipe:
        for job_id, message in messages.items():
            pipe.delete(RESULT_KEY + job_id, RETRY_KEY + job_id)
            pipe.set(JOB_KEY + job_id, message, px=EXPIRY)
            pipe.zadd(queue, {job_id: now})
        await pipe.execute()
