"""Signals, lost servers and failed starts, on real processes."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.embedded import open_postgres, open_valkey
from jobs import CreateUser, CreateUsers, NewUser
from tests import warm
from tests.conftest import StartWorker, wait_until
from tests.worker.test_end_to_end import BOTH, COMMANDS

pytestmark = pytest.mark.usefixtures("starts_processes")

SOON = timedelta(seconds=20)
Sessions = async_sessionmaker[AsyncSession]

_STOPPING = ("worker is stopping", "shutdown on SIGTERM")
"""What our class logs when it has heard the signal, and what arq's own logs."""


async def _backends(sessions: Sessions, name: str) -> int:
    async with sessions() as session:
        return (
            await session.scalar(
                text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name"), {"name": name}
            )
            or 0
        )


async def _wait_for_no_backends(sessions: Sessions, name: str) -> None:
    async with asyncio.timeout(10):
        while await _backends(sessions, name):
            await asyncio.sleep(0.02)


async def _wait_for_waiting_backends(sessions: Sessions, name: str, count: int) -> None:
    """Wait until ``count`` transactions of the worker hang on the lock that the test holds."""
    query = text("SELECT count(*) FROM pg_stat_activity WHERE application_name = :name AND wait_event_type = 'Lock'")
    async with asyncio.timeout(20):
        while True:
            async with sessions() as session:
                if await session.scalar(query, {"name": name}) == count:
                    return
            await asyncio.sleep(0.02)


async def _count_users(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM users")) or 0


@BOTH
async def test_sigterm_lets_running_jobs_end(
    command: str, start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Jobs that run end within the grace, others stay queued, the engine is disposed, the exit code is 0."""
    name = f"term-{command}"
    worker = start_worker(*COMMANDS[command], DATABASE_APPLICATION_NAME=name, WORKER_MAX_JOBS="3")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        users = [NewUser(name=f"User {number}") for number in range(8)]
        handles = await client.enqueue_many([CreateUsers(users=[user]) for user in users])  # none runs in a batch
        await _wait_for_waiting_backends(sessions, name, 3)
        worker.process.terminate()
        await asyncio.to_thread(wait_until, lambda: any(said in worker.log for said in _STOPPING), 20)
        assert worker.process.poll() is None
        await blocker.rollback()

    code = await asyncio.to_thread(worker.process.wait, 20)

    await _wait_for_no_backends(sessions, name)
    assert (code, await _count_users(sessions), await redis.zcard("arq:queue")) == (0, 3, 5)
    assert len([handle for handle in handles if await redis.exists(f"arq:result:{handle.job_id}")]) == 3
    assert await redis.keys("arq:in-progress:*") == []


async def test_what_outlasts_the_grace_goes_back_unharmed(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Given back to the queue at once, rolled back, without a burnt attempt; the next worker does it."""
    worker = start_worker(WORKER_SHUTDOWN_GRACE="300ms", DATABASE_APPLICATION_NAME="grace")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(CreateUser(name="Patient"))
        await _wait_for_waiting_backends(sessions, "grace", 1)

        code = await asyncio.to_thread(worker.stop)

        attempts = int(await redis.get(f"arq:retry:{handle.job_id}") or 0)
        assert (code, attempts) == (0, 0)
        assert await redis.keys("arq:in-progress:*") == []
        await blocker.rollback()
    start_worker()
    assert (await handle.result(timeout=SOON)).name == "Patient"
    assert await _count_users(sessions) == 1


async def test_the_jobs_of_a_killed_worker_start_elsewhere(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """After its lease, not after the longest timeout; once, and as a second attempt."""
    killed = start_worker(WORKER_LEASE="2s", DATABASE_APPLICATION_NAME="killed")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(5)])
        await _wait_for_waiting_backends(sessions, "killed", 1)
        killed.process.kill()
        killed.process.wait()
        since = time.monotonic()
        await blocker.rollback()
    start_worker(WORKER_LEASE="2s")

    await asyncio.gather(*(handle.result(timeout=SOON) for handle in handles))
    took = time.monotonic() - since

    async with sessions() as session:
        attempts = set(await session.scalars(text("SELECT attempt FROM arqonce.receipts")))
    assert (await _count_users(sessions), attempts) == (5, {2})
    assert took < 10  # about 2.5 s on a quiet machine; arq waits for 75


async def test_a_job_longer_than_its_lease_stays_with_its_worker(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """The lease is renewed while the job runs: another worker never claims it."""
    start_worker(WORKER_LEASE="1s", DATABASE_APPLICATION_NAME="long")
    start_worker(WORKER_LEASE="1s", DATABASE_APPLICATION_NAME="long")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(CreateUser(name="Long"))
        await _wait_for_waiting_backends(sessions, "long", 1)
        await asyncio.sleep(3)  # three leases

        attempts = int(await redis.get(f"arq:retry:{handle.job_id}") or 0)
        await blocker.rollback()

    assert (await handle.result(timeout=SOON)).name == "Long"
    assert attempts == 0  # none has ended without an end


async def test_a_zombie_takes_no_second_effect(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Stopped for longer than its lease and then continued, it finds the job done by another, and harms nothing."""
    zombie = start_worker(WORKER_LEASE="1s", DATABASE_APPLICATION_NAME="zombie")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(CreateUser(name="Once"))
        await _wait_for_waiting_backends(sessions, "zombie", 1)
        zombie.process.send_signal(signal.SIGSTOP)
        await blocker.rollback()
    start_worker(WORKER_LEASE="1s")
    answer = await handle.result(timeout=SOON)

    zombie.process.send_signal(signal.SIGCONT)
    late = await client.enqueue(CreateUser(name="Afterwards"))
    await late.result(timeout=SOON)
    await asyncio.to_thread(wait_until, lambda: '"job done"' in zombie.log, 10)

    async with sessions() as session:
        ids = list(await session.scalars(text("SELECT id FROM users WHERE name = 'Once'")))
    assert ids == [answer.id]
    assert await redis.zcard("arq:queue") == 0


async def test_deploys_under_load_lose_nothing_and_do_nothing_twice(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Workers come and go by SIGTERM while jobs pour in: one row for each job, no job left locked, no attempt burnt."""
    count, workers = 0, []
    for _ in range(6):
        worker = start_worker()
        workers.append(worker)
        for _ in range(5):
            await client.enqueue_many([CreateUser(name=f"User {count + number}") for number in range(60)])
            count += 60
            await asyncio.sleep(random.uniform(0, 0.02))
        assert await asyncio.to_thread(worker.stop) == 0
        assert await redis.keys("arq:in-progress:*") == []
    start_worker()
    async with asyncio.timeout(30):
        while await redis.zcard("arq:queue"):
            await asyncio.sleep(0.05)

    attempts = [json.loads(line).get("attempt", 1) for worker in workers for line in worker.log.splitlines()]
    assert await _count_users(sessions) == count
    assert set(attempts) == {1}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_that_is_still_loading_ends_with_0(environment: dict[str, str]) -> None:
    """A deploy that stops a young worker is no failure."""
    process = subprocess.Popen([sys.executable, "-m", "worker", "run"], env=environment)
    wait_until(lambda: _catches_sigterm(process.pid), 10)

    process.terminate()

    assert process.wait(20) == 0


def _catches_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) & 1 << (signal.SIGTERM - 1))


async def test_sigterm_is_never_lost(start_worker: StartWorker, redis: Redis) -> None:
    """A worker busy with looking at claimed jobs ends each time; on Python 3.11 a cancellation can get lost in it."""
    jobs = {f"claimed{number}": 1 for number in range(60)}
    for job_id in jobs:
        await redis.set(f"arq:in-progress:{job_id}", "1")
    await redis.zadd("arq:queue", jobs)
    workers = [start_worker(WORKER_POLL_INTERVAL="1ms") for _ in range(6)]

    for worker in workers:
        worker.process.terminate()

    assert [await asyncio.to_thread(worker.process.wait, 15) for worker in workers] == [0] * 6


async def test_a_second_signal_ends_at_once(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """No waiting for the grace; the job goes back all the same."""
    worker = start_worker(WORKER_SHUTDOWN_GRACE="60s", DATABASE_APPLICATION_NAME="second")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        await client.enqueue(CreateUser(name="Patient"))
        await _wait_for_waiting_backends(sessions, "second", 1)
        worker.process.send_signal(signal.SIGINT)
        await asyncio.to_thread(wait_until, lambda: "worker is stopping" in worker.log, 5)
        worker.process.send_signal(signal.SIGINT)

        code = await asyncio.to_thread(worker.process.wait, 10)
        await blocker.rollback()

    assert (code, await redis.zcard("arq:queue"), await redis.keys("arq:in-progress:*")) == (0, 1, [])


@BOTH
async def test_a_worker_without_redis_still_disposes_its_engine(
    command: str, start_worker: StartWorker, sessions: Sessions, tmp_path: Path
) -> None:
    """Redis is gone for good, then SIGTERM: connections to PostgreSQL are closed and the process ends."""
    name = f"orphan-{command}"
    with open_valkey(tmp_path / "valkey") as valkey:
        worker = start_worker(*COMMANDS[command], REDIS_URL=valkey.url, DATABASE_APPLICATION_NAME=name)
        assert await _backends(sessions, name) > 0
    worker.process.terminate()

    await asyncio.to_thread(worker.process.wait, 40)

    await _wait_for_no_backends(sessions, name)
    assert "worker stopped" in worker.log


async def test_a_worker_outlives_a_restart_of_redis(
    start_worker: StartWorker, sessions: Sessions, tmp_path: Path
) -> None:
    """It waits, says so once, and goes on when Redis is back, where arq's own class ends."""
    assert sessions is not None
    with open_valkey(tmp_path / "valkey") as valkey:
        url, port = valkey.url, valkey.url.rsplit(":", 1)[1].split("/")[0]
        worker = start_worker(REDIS_URL=url)
    await asyncio.to_thread(wait_until, lambda: "Redis is gone" in worker.log, 30)

    with open_valkey(tmp_path / "valkey", settings={"port": port}):
        async with JobClient(url) as client:
            user = await (await client.enqueue(CreateUser(name="Later"))).result(timeout=SOON)
        told = worker.log.count("Redis is gone")  # before this server ends too

    assert user.name == "Later"
    assert worker.process.poll() is None
    assert told == 1
    worker.process.kill()


async def test_a_worker_outlives_a_restart_of_postgresql(
    start_worker: StartWorker, client: JobClient, redis: Redis, tmp_path: Path
) -> None:
    """Jobs that come meanwhile are not claimed, burn no attempt, and are done soon after it is back."""
    with open_postgres(tmp_path / "postgres") as postgres:
        url, port = postgres.url, postgres.url.rsplit(":", 1)[1].split("/")[0]
        migrated = _run(os.environ | {"DATABASE_URL": url}, sys.executable, "-m", "worker", "migrate")
        assert migrated.returncode == 0, migrated.stderr
        worker = start_worker(DATABASE_URL=url)
    first = await client.enqueue(CreateUser(name="First"))
    await asyncio.to_thread(wait_until, lambda: "PostgreSQL is gone" in worker.log, 20)
    handles = await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(50)])
    await asyncio.sleep(3)  # an outage of some length: time for several attempts, were they made
    attempts = [int(await redis.get(key) or 0) for key in await redis.keys("arq:retry:*")]

    with open_postgres(tmp_path / "postgres", settings={"port": port}):
        back = time.monotonic()
        await asyncio.gather(*(handle.result(timeout=SOON) for handle in [first, *handles]))
        took = time.monotonic() - back

    done = [json.loads(line) for line in worker.log.splitlines() if ' done"' in line]
    assert sum(attempts) == 0
    assert {line["attempt"] for line in done} == {1}
    assert took < 10  # about one second on a quiet machine
    assert worker.log.count("PostgreSQL is gone") == 1
    worker.process.kill()


@pytest.mark.parametrize(
    ("variables", "code", "text_"),
    [
        (
            {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"},
            4,
            "PostgreSQL at 127.0.0.1:1/none cannot be reached",
        ),
        ({"DATABASE_PASSWORD": "wrong"}, 4, "refuses the password: correct DATABASE_URL or DATABASE_PASSWORD"),
        ({"REDIS_URL": "redis://127.0.0.1:1/0"}, 4, "Redis at 127.0.0.1:1/0 cannot be reached"),
        ({"REDIS_PASSWORD": "wrong"}, 4, "has no password: remove it from REDIS_URL and REDIS_PASSWORD"),
        ({"WORKER_MAX_JOBS": "none"}, 3, "WORKER_MAX_JOBS: Input should be a valid integer"),
        ({"DATABASE_URL": "nothing"}, 3, "DATABASE_URL: is not a URL"),
    ],
)
def test_a_start_that_cannot_succeed_says_why_in_one_line(
    environment: dict[str, str], variables: dict[str, str], code: int, text_: str
) -> None:
    """One line on standard error with the cure, no traceback, and the documented exit code."""
    done = _run(environment | variables)

    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == code, done.stderr
    assert last.startswith("users-worker: ")
    assert text_ in last
    assert "Traceback" not in done.stderr


def test_a_missing_database_and_a_missing_schema_name_their_cures(
    environment: dict[str, str], postgres_url: str
) -> None:
    """Create it; run users-worker migrate."""
    nowhere = _run(environment | {"DATABASE_URL": postgres_url.rsplit("/", 1)[0] + "/nowhere"})
    empty = _run(environment | {"DATABASE_URL": postgres_url.rsplit("/", 1)[0] + "/template1"})

    assert (nowhere.returncode, empty.returncode) == (4, 4)
    assert "has no such database: create it" in nowhere.stderr
    assert "Apply them with the command migrate" in empty.stderr


def test_a_redis_that_may_throw_jobs_away_is_refused(environment: dict[str, str], tmp_path: Path) -> None:
    """An eviction policy is no place for a queue."""
    policy = {"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}
    with open_valkey(tmp_path / "valkey", settings=policy) as valkey:
        done = _run(environment | {"REDIS_URL": valkey.url})

    assert done.returncode == 4
    assert "may evict queued jobs (allkeys-lru): set maxmemory-policy noeviction" in done.stderr


def test_a_failed_start_under_arq_shows_the_true_error(environment: dict[str, str]) -> None:
    """Arq runs the shutdown hook after it; that must not hide the reason."""
    done = subprocess.run(
        COMMANDS["arq"], env=environment | {"DATABASE_PASSWORD": "wrong"}, capture_output=True, text=True, check=False
    )

    assert done.returncode != 0
    assert "refuses the password: correct DATABASE_URL" in done.stderr.strip().splitlines()[-1]


def _run(environment: dict[str, str], *command: str) -> "subprocess.CompletedProcess[str]":
    return warm.run(command or (sys.executable, "-m", "worker", "run"), environment)


def test_health_tells_the_truth(start_worker: StartWorker) -> None:
    """``users-worker health`` says 0 while the worker works, and 1 when it was killed and its file has grown old."""
    worker = start_worker()

    well = _health(worker.health)
    worker.process.kill()
    worker.health.write_text(json.dumps(json.loads(worker.health.read_text()) | {"time": 0}))
    ill = _health(worker.health)

    assert (well, ill) == (0, 1)


def _health(file: Path) -> int:
    command = (sys.executable, "-m", "worker", "health")
    return _run(os.environ | {"WORKER_HEALTH_FILE": str(file)}, *command).returncode
