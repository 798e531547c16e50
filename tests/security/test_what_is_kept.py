"""What stays of people's data after a job, and where settings could show a password."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.failures import JobFailedError
from arqonce.process.housekeeping import sweep
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from jobs import CreateUser, FindUser
from jobs.payloads import EmailTakenError
from tests.conftest import StartWorker
from tests.leaks import EMAIL, NAME, PASSWORD
from tests.rights import Rights

SOON = timedelta(seconds=20)
KEPT = timedelta(seconds=30)


async def test_redis_keeps_answers_alone_and_not_for_long(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """After jobs that succeed, are refused or cannot be read, only their answers are left, with an end."""
    assert sessions is not None  # it removes the users afterwards
    worker = start_worker(WORKER_KEEP_RESULT=f"{KEPT.total_seconds()}s")
    for payload in (CreateUser(name=NAME, email=EMAIL), FindUser(email=EMAIL)):
        await (await client.enqueue(payload)).result(timeout=SOON)
    with pytest.raises(EmailTakenError):
        await (await client.enqueue(CreateUser(name=NAME, email=EMAIL))).result(timeout=SOON)
    garbled = await client.enqueue(CreateUser(name=NAME), delay=timedelta(seconds=1))
    await redis.set(f"arq:job:{garbled.job_id}", f'{{"f": "create_user", "k": {{"name": "{NAME}"')
    with pytest.raises(JobFailedError):
        await garbled.result(timeout=SOON)
    worker.stop()
    await redis.delete("arq:queue:baton")  # a bare 1, for a second

    left = {key.decode(): await redis.pttl(key) for key in await redis.keys() if not key.startswith(b"arqonce:")}
    refused = await redis.get(f"arq:result:{garbled.job_id}")

    assert sorted(left) == sorted(key for key in left if key.startswith("arq:result:"))
    assert len(left) == 4
    assert [key for key, ms in left.items() if not 0 < ms <= KEPT / timedelta(milliseconds=1)] == []
    assert NAME.encode() not in refused


@pytest.mark.parametrize("rights", ["least rights"], indirect=True)
async def test_a_worker_may_remove_what_is_too_old(rights: Rights, sessions: async_sessionmaker[AsyncSession]) -> None:
    """The role of workers is enough for the retention of receipts and dead letters."""
    old = {"then": datetime.now(UTC) - timedelta(days=100)}
    async with sessions.begin() as session:
        await session.execute(
            text("INSERT INTO arqonce.receipts (job_id, job_name, request_hash, result, attempt, finished_at) "
                 "VALUES ('old', 'x', '', '{}', 1, :then)"), old
        )  # fmt: skip
        await session.execute(
            text("INSERT INTO arqonce.dead_jobs (job_id, message, reason, explanation, error, attempts, died_at) "
                 "VALUES ('dead', '', 'x', 'x', 'x', 1, :then)"), old
        )  # fmt: skip

    async with open_database(DatabaseSettings(url=SecretStr(rights.database)), pool_size=1) as own:
        removed = await sweep(own, {"receipts": timedelta(days=30), "dead_jobs": timedelta(days=90)})

    assert removed == {"receipts": 1, "dead_jobs": 1}


def test_no_form_of_the_settings_shows_a_password() -> None:
    """Repr and str, as a traceback or a log would show them, and their dump as JSON."""
    settings = Settings(
        DatabaseSettings(url=SecretStr(f"postgresql://ann:{PASSWORD}@db/people"), password=SecretStr(PASSWORD)),
        QueueSettings(url=SecretStr(f"redis://ann:{PASSWORD}@redis:6379/0"), password=SecretStr(PASSWORD)),
        WorkerSettings(),
    )

    forms = [repr(settings), str(settings), f"{settings.database.sqlalchemy_url!r} {settings.database.sqlalchemy_url}"]
    forms += [part.model_dump_json() for part in (settings.database, settings.queue, settings.worker)]

    assert [form for form in forms if PASSWORD in form] == []
