"""What tests of commands need: the command line, and a worker."""

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.worker.command_line import CommandLine


@pytest.fixture
def command_line(environment: dict[str, str], redis: Redis) -> CommandLine:
    """Yield the command line over an empty queue."""
    assert redis is not None
    return CommandLine(environment)


@pytest.fixture
def worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    """Start a worker."""
    assert sessions is not None  # it removes the users afterwards
    start_worker()
