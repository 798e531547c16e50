"""Probes of the two servers, for the health file and for ``doctor``."""

from datetime import timedelta
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.redis import is_refusal, said, why_turned_away
from arqonce.database.faults import sqlstate_of, why_not_written, why_unavailable
from arqonce.database.writability import require_writable
from arqonce.process.health import Probe, ServerError

if TYPE_CHECKING:
    from arqonce.execution.gate import DatabaseGate

_PROBE = "arqonce:probe"
"""Key that the health probe writes. Nothing reads it."""

_PROBE_LASTS = timedelta(seconds=1)


def server_probes(
    redis: Redis, sessions: async_sessionmaker[AsyncSession], gate: "DatabaseGate | None" = None
) -> dict[str, Probe]:
    """Return probes of the two servers. The gate reports faults that only running jobs detect."""

    async def ask_database() -> None:
        if gate is not None and gate.trouble is not None:
            raise ServerError(gate.trouble)
        try:
            async with sessions() as session:
                await require_writable(session)
        except SQLAlchemyError as error:
            if reason := why_not_written(error):
                raise ServerError(f"cannot be written to: {reason}") from error
            if sqlstate_of(error) is not None:
                raise ServerError(f"cannot be used: {why_unavailable(error)}") from error
            raise

    return {"Redis": lambda: ask_redis(redis), "PostgreSQL": ask_database}


async def write_probe(redis: Redis) -> None:
    """Write a key: a PING also succeeds on a replica, a full server, and a server that lacks required replicas."""
    await redis.set(_PROBE, b"", px=_PROBE_LASTS)


async def ask_redis(redis: Redis) -> None:
    """Return if Redis can be written to.

    Raises:
        ServerError: the server answers, and rejects the write or the connection.
    """
    try:
        await write_probe(redis)
    except RedisError as error:
        if is_refusal(error):
            raise ServerError(f"cannot be written to: {said(error)}") from error
        if turned_away := why_turned_away(error):
            raise ServerError(turned_away) from error
        if isinstance(error, ResponseError):  # the rights of its user were changed
            raise ServerError(f"refuses the command: {said(error)}") from error
        raise
