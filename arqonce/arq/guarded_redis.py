"""arq's Redis client, which keeps from arq's own worker class what would kill or stall it. Ours needs none of it."""

from contextlib import suppress
from typing import Any

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.dead_letters import bury, write_letter
from arqonce.failures import MalformedMessageError
from arqonce.wire.bounds import MAX_BYTES
from arqonce.wire.codec import encode
from arqonce.wire.keys import (
    ABORT_KEY,
    ID_RULE,
    IN_PROGRESS_KEY,
    JOB_KEY,
    RESULT_KEY,
    RETRY_KEY,
    is_hostile_id,
    now_ms,
    printable_job_id,
)

_KEEP_REFUSAL_MS = 3_600_000
"""How long the reason can be read why a message was refused."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.arq.guarded_redis")


class GuardedRedis(ArqRedis):
    """Filters what arq reads from the queue."""

    sessions: async_sessionmaker[AsyncSession] | None = None
    """Where dead letters are written; set once the database is open."""

    async def zrangebyscore(self, name: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Return the ids that are due. Ids that arq cannot decode are refused; a score of 0 or less counts as now.

        (arq never runs a job whose score is 0, and dies of one that is minus infinity.)
        """
        found = await super().zrangebyscore(name, *args, **kwargs, withscores=True)  # type: ignore[misc] # not given twice
        hostile = [job_id for job_id, _ in found if is_hostile_id(job_id)]
        for job_id in hostile:
            await self.refuse(name, job_id, ID_RULE)
        good = [(job_id, score) for job_id, score in found if job_id not in hostile]
        if early := [job_id for job_id, score in good if score <= 0]:
            await self.zadd(name, dict.fromkeys(early, now_ms()), xx=True)
        return [job_id for job_id, _ in good if job_id not in early]

    async def delete(self, *names: Any) -> Any:  # noqa: ANN401 - redis-py's
        """Delete, or give up: arq deletes its health key before it calls the shutdown hook, and stops if that fails."""
        try:
            return await super().delete(*names)
        except (RedisError, OSError):
            return 0

    async def remove_hostile_aborts(self) -> None:
        """Remove requests to abort what cannot be a job: arq dies of ids that are not UTF-8. One or two round trips."""
        found = await self.zrange(ABORT_KEY, 0, -1)
        if hostile := [job_id for job_id in found if is_hostile_id(job_id)]:
            await self.zrem(ABORT_KEY, *hostile)
            _log.warning("requests to abort refused", count=len(hostile))

    async def refuse(self, queue: str, job_id: bytes, reason: str) -> None:
        """Remove a job that cannot be run, and leave the reason as its result."""
        failure = MalformedMessageError(reason)
        if not await self._bury(queue, job_id, failure):
            return  # it stays in the queue until the letter can be written
        result = {"t": 1, "f": "<unknown>", "a": [], "k": {}, "et": 0, "s": False, "r": failure, "st": 0, "ft": 0}
        async with self.pipeline(transaction=True) as pipe:
            pipe.zrem(queue, job_id)
            pipe.delete(*(prefix.encode() + job_id for prefix in (JOB_KEY, RETRY_KEY, IN_PROGRESS_KEY)))
            pipe.set(RESULT_KEY.encode() + job_id, encode(result), px=_KEEP_REFUSAL_MS)
            await pipe.execute()
        _log.warning("job refused", job_id=ascii(job_id[:64]), reason=failure.code)

    async def _bury(self, queue: str, job_id: bytes, failure: MalformedMessageError) -> bool:
        message = b""
        with suppress(ResponseError):  # of another type: there is no message
            message = await self.get(JOB_KEY.encode() + job_id) or b""
        letter = write_letter(
            failure,
            failure,
            job_id=printable_job_id(job_id),
            job_name=None,
            message=message[:MAX_BYTES],
            attempts=0,
            queue=queue,
        )
        try:
            if self.sessions is not None:
                await bury(self.sessions, letter)
        except (SQLAlchemyError, OSError):
            return False
        return self.sessions is not None
