"""Puts a job back into the queue under its own id."""

from redis.asyncio import Redis

from arqonce.wire.keys import EXPIRY, JOB_KEY, RESULT_KEY, RETRY_KEY, now_ms


async def requeue(redis: Redis, queue: str, messages: dict[str, bytes]) -> None:
    """Queue the messages under their ids, due now. Resets their attempts and deletes earlier results.

    Harmless for a job that is queued already or has taken effect: it gets the result from its receipt. One round trip.
    """
    now = now_ms()
    async with redis.pipeline(transaction=True) as pipe:
        for job_id, message in messages.items():
            pipe.delete(RESULT_KEY + job_id, RETRY_KEY + job_id)
            pipe.set(JOB_KEY + job_id, message, px=EXPIRY)
            pipe.zadd(queue, {job_id: now})
        await pipe.execute()
