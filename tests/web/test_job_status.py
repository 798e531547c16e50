"""Where a job stands, as Redis and PostgreSQL tell it."""

import time
from datetime import UTC, datetime

from redis.asyncio import Redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.failures import UnknownJobError
from arqonce.ledger.tables import DeadJob, PromisedJob
from arqonce.wire.codec import encode
from tests.web.conftest import WebProcess

Sessions = async_sessionmaker[AsyncSession]


async def test_redis_tells_what_is_queued_running_and_just_ended(
    service: WebProcess, redis: Redis, sessions: Sessions
) -> None:
    """A lease that has lapsed is none; arq's own worker has another key than ours."""
    assert sessions is not None
    now = time.time() * 1000
    await redis.zadd("arq:queue", dict.fromkeys(("queued", "lapsed", "arqs"), now))
    await redis.zadd("arq:queue:leases", {"ours": now + 60_000, "lapsed": now - 1000})
    await redis.set("arq:in-progress:arqs", "1")
    await redis.set("arq:result:done", encode({"s": True, "r": {"id": 1}}))
    await redis.set("arq:result:failed", encode({"s": False, "r": UnknownJobError("cure")}))

    jobs = {name: (await service.get(f"/jobs/{name}")).json for name in ("queued", "lapsed", "ours", "arqs", "done")}
    failed = (await service.get("/jobs/failed")).json

    assert {name: job["status"] for name, job in jobs.items()} == {
        "queued": "queued", "lapsed": "queued", "ours": "running", "arqs": "running", "done": "succeeded",
    }  # fmt: skip
    assert jobs["done"]["result"] == {"id": 1}
    assert failed == {
        "id": "failed", "status": "failed", "result": None, "failure": {"type": "unknown_job", "message": "cure"},
    }  # fmt: skip


async def test_postgresql_tells_what_redis_has_forgotten(service: WebProcess, redis: Redis, sessions: Sessions) -> None:
    """A promise is queued, a dead letter has failed, unless it is queued again."""
    now = datetime.now(UTC)
    letter = {"message": b"{}", "reason": "database_failed", "explanation": "e", "error": "", "attempts": 5}
    async with sessions.begin() as session:
        await session.execute(
            insert(PromisedJob).values(
                job_id="promised", job_name="n", queue="q", message=b"{}", request_hash=b"1", due_at=now, give_at=now
            )
        )
        await session.execute(insert(DeadJob), [{"job_id": "dead", **letter}, {"job_id": "retried", **letter}])
    await redis.zadd("arq:queue", {"retried": 1})

    jobs = {name: (await service.get(f"/jobs/{name}")).json for name in ("promised", "dead", "retried")}

    assert {name: job["status"] for name, job in jobs.items()} == {
        "promised": "queued", "dead": "failed", "retried": "queued",
    }  # fmt: skip
    assert jobs["dead"]["failure"]["type"] == "database_failed"


async def test_what_is_no_answer_of_a_job_is_not_shown(service: WebProcess, redis: Redis) -> None:
    """Neither a pickle of plain arq, nor what somebody wrote there."""
    for number, data in enumerate((b"\x80\x04.", b"{", b"[]")):
        await redis.set(f"arq:result:odd{number}", data)

    assert {(await service.get(f"/jobs/odd{number}")).status for number in range(3)} == {404}
