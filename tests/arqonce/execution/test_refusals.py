"""Many jobs that cannot be run: recorded together, each with its own letter, and none that is known already twice."""

from typing import Any

from arq.connections import ArqRedis
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.refusals import Refused, refuse_together
from arqonce.failures import UnknownJobError
from arqonce.outbox import enqueue_in
from arqonce.spec import JobSpec, Registry
from jobs import CreateUser
from jobs.registry import REGISTRY
from jobs.users import create_user
from tests.arqonce.conftest import BuildWorker, build_recording_worker
from tests.faults.observe import letters

Sessions = async_sessionmaker[AsyncSession]


async def _transactions(sessions: Sessions) -> int:
    async with sessions() as session:
        count = "SELECT count(DISTINCT xmin::text) FROM arqonce.dead_jobs"
        return int(await session.scalar(text(count)) or 0)


async def _names(sessions: Sessions) -> set[tuple[str | None, str]]:
    async with sessions() as session:
        rows = await session.execute(text("SELECT DISTINCT job_name, reason FROM arqonce.dead_jobs"))
    return {(name, reason) for name, reason in rows}


async def test_jobs_that_nobody_knows_are_recorded_together(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """In a transaction for all that were claimed at once; garbage, too, and whatever else cannot be read."""
    for number in range(100):
        await pool.enqueue_job("gone", name="Jane", _job_id=f"gone-{number}")
        await redis.zadd("arq:queue", {f"ghost-{number}": 1_000})
        await redis.set(f"arq:job:garbage-{number}", b"\xff")
        await redis.zadd("arq:queue", {f"garbage-{number}": 1_000})
    worker = await build_recording_worker(build, REGISTRY, sessions)
    await worker.async_run()

    found = await letters(sessions)
    assert found == {f"gone-{n}": "unknown_job" for n in range(100)} | {
        f"garbage-{n}": "malformed_message" for n in range(100)
    } | {f"ghost-{n}": "message_missing" for n in range(100)}
    assert await _names(sessions) == {("gone", "unknown_job"), (None, "malformed_message"), (None, "message_missing")}
    assert await _transactions(sessions) < 20
    assert await redis.zcard("arq:queue") == 0
    assert len(await redis.keys("arq:result:*")) == 300


async def test_what_is_known_already_is_looked_at_alone(sessions: Sessions) -> None:
    """A promise, a letter of another request; a message that is gone is no other case, and neither is one id twice."""
    async with sessions.begin() as session:
        await enqueue_in(session, CreateUser(name="Jane"), key="promised")
    dispatcher = Dispatcher(sessions)
    failure = UnknownJobError("this worker has no job 'gone'")
    await refuse_together(dispatcher, [Refused(failure, "earlier", b"[]", 1)])
    await refuse_together(dispatcher, [Refused(failure, "before", b"{}", 1)])
    asked = {"promised": b"{}", "earlier": b"{}", "before": b"", "new": b"{}", "other": b"{}", "lost": b""}

    jobs = [Refused(failure, job_id, message, 1) for job_id, message in asked.items()]
    recorded = await refuse_together(dispatcher, [*jobs, Refused(failure, "new", b"{}", 1)])

    assert recorded == {"new", "other", "lost"}
    assert await letters(sessions) == dict.fromkeys(["earlier", "before", "new", "other", "lost"], "unknown_job")


async def test_jobs_that_were_put_back_and_die_again_are_recorded_together(sessions: Sessions) -> None:
    """Their letters are the youngest then, and say what happened last."""
    dispatcher = Dispatcher(sessions)
    before = [Refused(UnknownJobError("gone"), f"j{at}", b"%d" % at, 5) for at in range(3)]
    after = [Refused(UnknownJobError("still gone"), f"j{at}", b"%d" % at, 1) for at in range(3)]
    await refuse_together(dispatcher, before)
    async with sessions.begin() as session:
        await session.execute(text("UPDATE arqonce.dead_jobs SET died_at = 'epoch'"))

    recorded = await refuse_together(dispatcher, after)

    async with sessions() as session:
        rows = await session.execute(text("SELECT explanation, attempts, died_at > 'epoch' FROM arqonce.dead_jobs"))
    assert [tuple(row) for row in rows] == [("still gone", 1, True)] * 3
    assert recorded == {"j0", "j1", "j2"}
    assert await _transactions(sessions) == 1


async def test_jobs_that_killed_their_workers_end_together_whatever_their_kind(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """Also those that run one by one."""
    for number in range(60):
        await pool.enqueue_job("create_user", name="Jane", _job_id=f"{number}")
        await redis.set(f"arq:retry:{number}", 99)
        await redis.zadd("arq:queue:leases", {f"{number}": 1_000})
    spec = JobSpec(CreateUser, create_user)
    worker = await build_recording_worker(build, Registry(spec), sessions)
    await worker.async_run()

    assert await letters(sessions) == {f"{number}": "attempts_exhausted" for number in range(60)}
    assert await _transactions(sessions) < 20


async def test_invalid_payloads_of_a_batch_are_recorded_together(
    pool: ArqRedis, build: BuildWorker, sessions: Sessions
) -> None:
    """Beside valid ones, which take effect."""
    for number in range(60):
        fields: dict[str, Any] = {"nme" if number % 2 else "name": "Jane"}
        await pool.enqueue_job("create_user", **fields, _job_id=f"{number}")
    worker = await build_recording_worker(build, REGISTRY, sessions)
    await worker.async_run()

    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert users == 30
    assert await letters(sessions) == {f"{number}": "invalid_payload" for number in range(1, 60, 2)}
    assert await _transactions(sessions) < 10
