"""What operators do with the command line, with no more rights than theirs."""

import json
import sys

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests import warm
from tests.conftest import StartWorker, wait_until_async
from tests.rights import Rights

pytestmark = pytest.mark.parametrize("rights", ["least rights"], indirect=True)


async def test_dead_letters_are_handled(
    start_worker: StartWorker,
    environment: dict[str, str],
    rights: Rights,
    redis: Redis,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """List, show, retry and discard them, and see what is queued."""
    assert sessions is not None  # it removes the letters afterwards
    own = environment | {"DATABASE_URL": rights.operator_database, "REDIS_URL": rights.operator_redis}
    worker = start_worker()
    for job_id in ("one", "two"):
        await redis.set(f"arq:job:{job_id}", '{"f": "no_such_job", "et": 0}')
        await redis.zadd("arq:queue", {job_id: 1})
    await wait_until_async(lambda: _are_dead(sessions, 2), 20)
    worker.stop()

    shown = json.loads(_run(own, "dead", "show", "one"))
    retried = _run(own, "dead", "retry", "one")
    queued = json.loads(_run(own, "status", "--json"))
    discarded = _run(own, "dead", "discard", "two")

    assert shown["reason"] == "unknown_job"
    assert (retried, queued["waiting"], discarded) == ("put back 1\n", 1, "discarded 1\n")
    assert [letter["job_id"] for letter in _dead(own)] == ["one"]


async def _are_dead(sessions: async_sessionmaker[AsyncSession], count: int) -> bool:
    async with sessions() as session:
        found: int = await session.scalar(text("SELECT count(*) FROM arqonce.dead_jobs"))
    return found == count


def _dead(environment: dict[str, str]) -> list[dict[str, str]]:
    letters: list[dict[str, str]] = json.loads(_run(environment, "dead", "list", "--json"))
    return letters


def _run(environment: dict[str, str], *command: str) -> str:
    done = warm.run([sys.executable, "-m", "worker", *command], environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
