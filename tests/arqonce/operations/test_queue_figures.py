"""Figures of queues, read from real servers."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.connection.presence import LiveWorker, announce
from arqonce.operations import queue_figures
from arqonce.operations.queue_figures import QueueReader

Sessions = async_sessionmaker[AsyncSession]

_PROMISE = text("""
    INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at, created_at)
    SELECT 'in-' || name, 'create_user', name, '', '', at, at, at
    FROM unnest(CAST(:names AS text[])) AS name, (SELECT now() - interval '2 min' AS at) AS time
""")


async def _shown(reader: QueueReader) -> dict[tuple[str, str], float]:
    """Return the figures that tell of trouble, by metric and queue."""
    told = {"arqonce_queue_served", "arqonce_promised_overdue"}
    samples = (await reader.read()).samples()
    return {(name, queue): value for (name, (queue, *_)), [value] in samples.items() if name in told}


async def test_a_queue_that_nobody_serves_is_shown_by_whoever_sees_its_promises(
    sessions: Sessions, redis: Redis
) -> None:
    """So that it raises an alert: its name stands in no process's WORKER_QUEUE. One that others serve is theirs."""
    for number, queue in enumerate(("arq:queue", "others")):
        await announce(redis, LiveWorker(str(number), "there", number, [queue]))
    async with sessions.begin() as session:
        await session.execute(_PROMISE, {"names": ["reports", "others"]})

    assert await _shown(QueueReader(redis, ["arq:queue"], sessions)) == {
        ("arqonce_queue_served", "arq:queue"): 1, ("arqonce_promised_overdue", "arq:queue"): 0,
        ("arqonce_queue_served", "reports"): 0, ("arqonce_promised_overdue", "reports"): 1,
    }  # fmt: skip


async def test_names_of_such_queues_make_no_figures_without_bound(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not one after the other: a process remembers which it has shown."""
    monkeypatch.setattr(queue_figures, "_MOST_OTHERS", 2)
    monkeypatch.setattr(queue_figures, "_FRESH", timedelta(0))
    monkeypatch.setattr(queue_figures, "_SHARE", 0)
    reader, seen = QueueReader(redis, ["arq:queue"], sessions), set[str]()
    for names in (["a"], ["b", "c"], ["d"]):
        async with sessions.begin() as session:
            await session.execute(text("DELETE FROM arqonce.outbox"))
            await session.execute(_PROMISE, {"names": names})
        seen |= {queue for _, queue in await _shown(reader)}

    assert len(seen) == 1 + 2


async def test_a_server_that_did_not_answer_is_asked_again_soon(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes long is shown for twenty times as long: that it did not answer for 2 s would be shown for 40 s."""
    monkeypatch.setattr(queue_figures, "_LIMIT", timedelta(milliseconds=100))
    monkeypatch.setattr(queue_figures, "_LONGEST_GAP", timedelta(0))
    reader = QueueReader(redis, ["arq:queue"], sessions)
    async with sessions.begin() as session:
        await session.execute(text("LOCK TABLE arqonce.outbox IN ACCESS EXCLUSIVE MODE"))
        without = await reader.read()

    complete = await reader.read()

    assert (list(without.ledger), list(complete.ledger)) == ([], ["arq:queue"])
