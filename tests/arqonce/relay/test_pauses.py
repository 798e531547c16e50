"""The copy of pauses in Redis that a relay keeps, and what it looks at for that."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.ledger.pauses import pause
from arqonce.relay.pauses import PausesCopied
from tests.pauses import read_paused

QUEUE = "arq:queue"

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture
async def copied(sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> PausesCopied:
    """Return what a relay has that looks again at once, after its first look."""
    monkeypatch.setattr("arqonce.relay.pauses._EVERY", timedelta(0))
    copied = PausesCopied(redis, sessions, [QUEUE])
    await copied.look(is_first=True)
    return copied


async def _record(sessions: Sessions, kind: str, length: timedelta | None = None) -> None:
    async with sessions.begin() as session:
        await pause(session, QUEUE, kind, reason="the bank", who="ann", length=length)


async def test_postgresql_is_read_when_redis_has_changed(
    copied: PausesCopied, sessions: Sessions, redis: Redis
) -> None:
    """At once when it was emptied; while it says the same as before, only every five seconds."""
    await _record(sessions, "mail")
    kinds = []

    await copied.look(is_first=True)
    kinds.append((await read_paused(redis, QUEUE)).kinds)
    await redis.flushall()
    await copied.look(is_first=True)
    kinds.append((await read_paused(redis, QUEUE)).kinds)

    assert kinds == [{}, {"mail": -1}]


async def test_what_a_killed_command_has_recorded_is_copied(
    copied: PausesCopied, sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When PostgreSQL is read the next time."""
    monkeypatch.setattr("arqonce.relay.pauses._RECORD_EVERY", timedelta(0))
    copied.hurry()
    await copied.look(is_first=True)
    await _record(sessions, "mail")

    await copied.look(is_first=True)

    assert (await read_paused(redis, QUEUE)).kinds == {"mail": -1}


async def test_the_end_of_a_pause_is_copied_at_once(copied: PausesCopied, sessions: Sessions, redis: Redis) -> None:
    """Else jobs that were put aside would return late."""
    await _record(sessions, "mail", timedelta(milliseconds=100))
    copied.hurry()
    await copied.look(is_first=True)
    before = (await read_paused(redis, QUEUE)).kinds

    async with asyncio.timeout(5):
        while (await read_paused(redis, QUEUE)).kinds:
            await copied.look(is_first=True)

    assert list(before) == ["mail"]
