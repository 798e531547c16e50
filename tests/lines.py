"""A line to Redis on which a test says what a worker does."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from arqonce.connection.direct import DirectConnection
from arqonce.connection.presence import LiveWorker, Shown
from arqonce.connection.presence import show as show_on_line


async def show(redis: Redis, worker: LiveWorker, doing: Mapping[str, Any]) -> Shown:
    """Say what the worker does, and look for orders, on a connection that is closed then."""
    line = DirectConnection(redis)
    try:
        return await show_on_line(line, worker, doing)
    finally:
        await line.aclose()
