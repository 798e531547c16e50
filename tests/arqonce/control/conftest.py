"""An operator, with the rights of one."""

import asyncio
import sys
from typing import Protocol

import pytest

from tests import warm
from tests.rights import Rights


class Operate(Protocol):
    """Runs a command as an operator; returns what it prints, errors last. It must end with ``code``."""

    async def __call__(self, *command: str, code: int = 0) -> str:
        """Run it."""
        ...


@pytest.fixture
def operate(environment: dict[str, str], rights: Rights) -> Operate:
    """Return what runs commands of users-worker."""
    own = environment | {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis}

    async def operate(*command: str, code: int = 0) -> str:
        done = await asyncio.to_thread(warm.run, [sys.executable, "-m", "worker", *command], own)
        assert done.returncode == code, done.stderr
        return str(done.stdout + done.stderr)

    return operate
