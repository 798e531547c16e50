"""Jobs that share transactions, in a worker process: few transactions, one row and one answer for each job."""

import json

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from chaos.turns import TakeTurn
from jobs.payloads import EmailTakenError
from tests.arqonce.engine.test_batch_processes import _has_left_nothing, _results
from tests.arqonce.execution.test_batch import counts
from tests.conftest import StartWorker, wait_until_async

Sessions = async_sessionmaker[AsyncSession]


async def test_a_backlog_shares_transactions_and_each_refusal_is_its_own(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Three of 400 find their e-mail taken, after their inserts have failed: all others are stored once."""
    async with sessions.begin() as session:
        await session.execute(text("INSERT INTO users (name, email) VALUES ('Jane', 'jane@example.org')"))
    taken = {50, 51, 300}
    emails = ["jane@example.org" if at in taken else None for at in range(400)]
    handles = await client.enqueue_many([TakeTurn(name=f"User {at}", email=emails[at]) for at in range(400)])
    worker = start_worker(WORKER_REGISTRY="chaos.turns:REGISTRY")

    answers = await _results(handles, 60)

    assert [at for at, answer in enumerate(answers) if isinstance(answer, EmailTakenError)] == sorted(taken)
    assert [answer.name for at, answer in enumerate(answers) if at not in taken] == [
        f"User {at}" for at in range(400) if at not in taken
    ]
    users, receipts, dead, transactions = await counts(sessions)
    assert (users, receipts, dead, transactions < 250) == (398, 400, 0, True)
    shared = [json.loads(line)["jobs"] for line in worker.log.splitlines() if '"batch done"' in line]
    assert sum(shared) > 200
    await wait_until_async(lambda: _has_left_nothing(redis), 10)
