"""Workers that die, orphans, redelivery, and clocks that are wrong. With real workers."""

import json
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from arqonce import JobClient
from arqonce.engine.leases import Leases
from arqonce.failures import AttemptsExhaustedError
from jobs import CreateUser
from tests.conftest import StartWorker
from tests.faults.observe import (
    Sessions,
    attempts,
    letters,
    successes,
    users_by_name,
    wait_for_backends,
    wait_for_empty_queue,
)
from tests.worker.test_end_to_end import BOTH, COMMANDS

SOON = timedelta(seconds=30)


async def test_with_the_default_lease_a_killed_workers_job_starts_again_in_15_s(
    start_worker: StartWorker, client: JobClient, sessions: Sessions
) -> None:
    """The one test that waits for it. Arq's locks last 310 s by default, and longer than the longest job of all."""
    killed = start_worker(DATABASE_APPLICATION_NAME="killed-15")
    async with sessions() as blocker:
        await blocker.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        handle = await client.enqueue(CreateUser(name="Once"))
        await wait_for_backends(sessions, "killed-15", 1)
        killed.process.kill()
        since = time.monotonic()
        await blocker.rollback()
    other = start_worker()

    await handle.result(timeout=SOON)
    took = time.monotonic() - since

    assert 5 < took < 18  # the lease was renewed at most 5 s before the kill
    assert (await users_by_name(sessions), attempts(other)) == ({"Once": 1}, {2})


@BOTH
async def test_a_job_that_killed_all_its_workers_is_dead_with_its_message(
    command: str, start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Arq deletes it without a trace of what it was."""
    handle = await client.enqueue(CreateUser(name="Killer"))
    # As killed workers leave it: arq's five; of ours two that may have died of another job, and five in which it was
    # alone. The last one's attempt is counted when its lease is found to have ended.
    starts = 7 if command == "ours" else 5
    await redis.set(f"arq:retry:{handle.job_id}", starts - (command == "ours"))
    await redis.zadd("arqonce:crashes:arq:queue", {handle.job_id: 2 * 2 + 1})
    await redis.zadd("arq:queue:leases", {handle.job_id: 1})
    worker = start_worker(*COMMANDS[command])

    with pytest.raises(AttemptsExhaustedError, match=f"started {starts} times"):
        await handle.result(timeout=SOON)

    assert worker.process.poll() is None
    assert await letters(sessions) == {handle.job_id: "attempts_exhausted"}


async def test_five_hundred_orphans_do_not_delay_a_new_job(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Two killed workers have left them locked. Arq reads only the oldest ids, and starts nothing for minutes."""
    assert sessions is not None
    await client.enqueue_many([CreateUser(name=f"Orphan {number}") for number in range(500)])
    leases = Leases(redis, "arq:queue", timedelta(seconds=60))
    assert len((await leases.claim(500)).claims) == 500
    await leases.aclose()
    start_worker()
    since = time.monotonic()

    await (await client.enqueue(CreateUser(name="New"))).result(timeout=SOON)

    assert time.monotonic() - since < 1


async def test_workers_share_a_backlog_without_conflict(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Three processes, 400 jobs: each has one effect, in its first attempt, and every process has a part."""
    names = [f"User {number}" for number in range(400)]
    workers = [start_worker() for _ in range(3)]

    await client.enqueue_many([CreateUser(name=name) for name in names])
    await wait_for_empty_queue(redis, 60)

    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    assert [len(successes(worker)) > 0 for worker in workers] == [True] * 3
    assert attempts(*workers) == {1}


@BOTH
async def test_a_key_used_again_after_its_result_is_gone_takes_no_second_effect(
    command: str, start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions
) -> None:
    """Arq runs the job again; here its receipt answers, for as long as receipts are kept."""
    start_worker(*COMMANDS[command])
    first = await (await client.enqueue(CreateUser(name="Jane"), key="signup")).result(timeout=SOON)
    await redis.delete("arq:result:signup")

    again = await (await client.enqueue(CreateUser(name="Jane"), key="signup")).result(timeout=SOON)

    assert (again.id, await users_by_name(sessions)) == (first.id, {"Jane": 1})


@pytest.mark.parametrize("seconds", [-15, 15])
async def test_a_worker_whose_clock_is_wrong_starts_jobs_when_they_are_due(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, tmp_path: Path, seconds: int
) -> None:
    """By the clock of Redis: neither late what is due now, nor early what is due later."""
    assert sessions is not None
    worker = start_worker(PYTHONPATH=_wrong_clock(tmp_path, seconds))
    assert abs(json.loads(worker.health.read_text())["time"] - time.time() - seconds) < 10  # it is wrong indeed
    started = time.monotonic()
    later = await client.enqueue(CreateUser(name="Later"), delay=timedelta(seconds=2))

    await (await client.enqueue(CreateUser(name="Now"))).result(timeout=SOON)
    now_took = time.monotonic() - started
    await later.result(timeout=SOON)
    later_took = time.monotonic() - started

    assert (now_took < 1.5, 2 <= later_took < 4) == (True, True)


def _wrong_clock(directory: Path, seconds: int) -> str:
    """Write a module that Python runs at its start, and which sets the clock wrong; return its search path."""
    program = f"import time\nclock, clock_ns = time.time, time.time_ns\ntime.time = lambda: clock() + {seconds}\n"
    program += f"time.time_ns = lambda: clock_ns() + {seconds} * 10**9\n"
    (directory / "sitecustomize.py").write_text(program)
    return f"{directory}{os.pathsep}{Path(__file__).parents[2]}"


async def test_a_producers_wrong_clock_delays_its_jobs_and_loses_none(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a job is due stands in its score, by the producer's clock: two seconds ahead are two seconds late."""
    assert sessions is not None
    start_worker()
    ahead = time.time_ns() + 2 * 10**9
    with monkeypatch.context() as patch:
        patch.setattr("arqonce.client.requests.now_ms", lambda: ahead // 10**6)
        handle = await client.enqueue(CreateUser(name="Early"))
    started = time.monotonic()

    await handle.result(timeout=SOON)

    assert 1 < time.monotonic() - started < 4
    assert await redis.zcard("arq:queue") == 0
