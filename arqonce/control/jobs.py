"""Asks workers to abort a job. The request is on record before it is given."""

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.requests import Command, abort_commands, look_commands, read_look
from arqonce.ledger.audit import record


async def abort(  # noqa: PLR0913 - the act and its record
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
    job_id: str,
    queue: str,
    *,
    is_promised: bool,
    who: str,
    why: str | None,
) -> bool:
    """Request a job's abort; return whether there is anything to abort. A job that has ended is none.

    Three round trips. It takes effect when a worker sees it; one that is about to commit may be earlier.
    """
    info = read_look(job_id, await _run(redis, look_commands(queue, job_id)))
    commands = abort_commands(queue, info, is_promised=is_promised)
    if not commands:
        return False
    async with sessions.begin() as session:
        await record(session, who=who, act="job abort", target=job_id, number=1, why=why)
    await _run(redis, commands)
    return True


async def _run(redis: Redis, commands: Sequence[Command]) -> list[Any]:
    async with redis.pipeline(transaction=True) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        return await pipe.execute()
