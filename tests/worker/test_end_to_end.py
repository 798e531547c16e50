"""Each job through a real worker process, in both ways of running it, and hostile messages on the way.

With all rights, and with no more than ``deploy/`` grants.
"""

import asyncio
import json
import pickle
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobStatus
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobClient
from arqonce.failures import (
    InvalidPayloadError,
    JobFailedError,
    MalformedMessageError,
    MessageMissingError,
    UnknownJobError,
)
from arqonce.ledger.dead_jobs import DeadFilter, dead_jobs
from arqonce.wire.codec import decode, encode
from jobs import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser
from jobs.payloads import EmailTakenError
from tests import warm
from tests.conftest import StartWorker, WorkerProcess, wait_until, wait_until_async
from tests.leaks import EMAIL, NAME, find_leaks
from tests.rights import Rights

pytestmark = pytest.mark.parametrize("rights", ["all rights", "least rights"], indirect=True)

SOON = timedelta(seconds=20)
BOTH = pytest.mark.parametrize("command", ["ours", "arq"])
COMMANDS = {
    "ours": (sys.executable, "-m", "worker", "run"),
    "arq": (str(Path(sys.executable).parent / "arq"), "worker.WorkerSettings"),
}


@pytest.fixture
def worker(command: str, start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> WorkerProcess:
    """Start a worker in the way that the test names."""
    assert sessions is not None  # it removes the users afterwards
    return start_worker(*COMMANDS[command])


@BOTH
async def test_every_job_runs(worker: WorkerProcess, client: JobClient) -> None:
    """Create, find or create, find, create many: results are typed, failures too."""
    jane = await (await client.enqueue(CreateUser(name=NAME, email=EMAIL.upper()))).result(timeout=SOON)
    again = await (await client.enqueue(GetOrCreateUser(name="J", email=EMAIL))).result(timeout=SOON)
    found = await (await client.enqueue(FindUser(name=NAME))).result(timeout=SOON)
    many = await (await client.enqueue(CreateUsers(users=[NewUser(name="A"), NewUser(name="J", email=EMAIL)]))).result(
        timeout=SOON
    )
    with pytest.raises(EmailTakenError):
        await (await client.enqueue(CreateUser(name="Janet", email=EMAIL))).result(timeout=SOON)

    assert (jane.name, jane.email) == (NAME, EMAIL)
    assert (again.user, again.is_new) == (jane, False)
    assert found.users == [jane]
    assert [(user.id == jane.id, user.is_new) for user in many.users] == [(False, True), (True, False)]
    assert worker.stop() == 0


@BOTH
async def test_a_plain_arq_producer_is_served(worker: WorkerProcess, rights: Rights) -> None:
    """Arq's own pool with our two functions; positional arguments; Job.result(), status(), abort(), info().

    With least rights, abort() is an operator's: it reads the job that it aborts.
    """
    pool = await _open_pool(rights.producer_redis)

    job = await pool.enqueue_job("create_user", NAME, email=EMAIL)
    deferred = await pool.enqueue_job("create_user", "Later", _defer_by=300)
    assert job is not None
    assert deferred is not None
    result = await job.result(timeout=20, poll_delay=0.02)
    with pytest.raises(InvalidPayloadError, match="Its fields are: name, email"):
        await _arq_result(pool, "create_user", nme=NAME)
    operator = await _open_pool(rights.operator_redis)
    was_aborted = await Job(deferred.job_id, operator, _deserializer=decode).abort(timeout=20, poll_delay=0.02)
    await operator.aclose()
    info = await job.result_info()
    status = await job.status()
    await pool.aclose()

    assert (result["name"], result["email"]) == (NAME, EMAIL)
    assert was_aborted
    assert info is not None
    assert (info.function, info.success, status) == ("create_user", True, JobStatus.complete)
    assert worker.process.poll() is None


async def _open_pool(url: str) -> ArqRedis:
    return await create_pool(RedisSettings.from_dsn(url), job_serializer=encode, job_deserializer=decode)


async def _arq_result(pool: ArqRedis, function: str, **kwargs: Any) -> object:  # noqa: ANN401 - arq's
    job = await pool.enqueue_job(function, **kwargs)
    assert job is not None
    return await job.result(timeout=20, poll_delay=0.02)


HOSTILE = {
    "garbage": b"\xff\x00garbage",
    "pickle": pickle.dumps({"t": None, "f": "create_user", "a": (), "k": {}, "et": 1}),
    "nested": b"[" * 100_000,
    "large": b'"' + b"x" * 2_000_000 + b'"',
    "list": b"[1,2]",
    "function": b'{"t":null,"f":["x"],"a":[],"k":{},"et":1}',
    "try": b'{"t":"x","f":"create_user","a":[],"k":{"name":"x"},"et":1}',
    "huge-try": b'{"t":1e30,"f":"create_user","a":[],"k":{"name":"x"},"et":1}',
    "time": b'{"t":null,"f":"create_user","a":[],"k":{"name":"x"},"et":"now"}',
    "far": b'{"t":null,"f":"create_user","a":[],"k":{"name":"x"},"et":99999999999999999}',
    "arguments": b'{"t":null,"f":"create_user","a":7,"k":{"name":"x"},"et":1}',
    "result-like": b'{"s":true,"f":["x"],"a":[],"k":{},"t":null,"et":0}',
    "result-like-late": b'{"s":true,"f":"create_user","a":[],"k":{"name":"x"},"t":null,"et":1000000000000000000000000}',
    "surrogate": b'{"t":null,"f":"create_user","a":[],"k":{"name":"\\ud800"},"et":1}',
}


@BOTH
async def test_no_message_kills_the_worker(worker: WorkerProcess, client: JobClient, redis: Redis) -> None:
    """Each hostile message ends as a failure that the producer can read; ids that are no ids are removed."""
    now = time.time() * 1000
    for job_id, data in HOSTILE.items():
        await redis.set(f"arq:job:{job_id}", data)
        await redis.zadd("arq:queue", {job_id: now})
    hostile_ids: list[bytes] = [b"\xff\xfe", b"with space", b"line\nbreak", b""]
    await redis.zadd("arq:queue", dict.fromkeys(hostile_ids, now))

    failures = {job_id: await _failure(redis, job_id) for job_id in HOSTILE}
    after = await (await client.enqueue(CreateUser(name="After"))).result(timeout=SOON)

    assert {type(failure) for failure in failures.values()} == {MalformedMessageError}
    assert after.name == "After"
    assert worker.process.poll() is None
    assert await redis.zcard("arq:queue") == 0


async def _failure(redis: Redis, job_id: str) -> JobFailedError:
    job = Job(job_id, redis, _deserializer=decode)
    with pytest.raises(JobFailedError) as caught:
        await job.result(timeout=20, poll_delay=0.02)
    return caught.value


@BOTH
async def test_any_score_that_is_past_means_now(worker: WorkerProcess, redis: Redis) -> None:
    """Zero is a natural choice of a producer; arq never runs such a job, and dies of minus infinity."""
    message = '{"f": "create_user", "k": {"name": "x"}, "et": 0}'
    scores = {"zero": 0.0, "negative": -5.0, "infinite": float("-inf")}
    for job_id, score in scores.items():
        await redis.set(f"arq:job:{job_id}", message)
        await redis.zadd("arq:queue", {job_id: score})

    answers = [await Job(job_id, redis, _deserializer=decode).result(timeout=20, poll_delay=0.02) for job_id in scores]

    assert [answer["name"] for answer in answers] == ["x", "x", "x"]
    assert worker.process.poll() is None


async def test_keys_of_another_type_end_their_job_alone(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A list for a message ends its job; a list for a lock, and text for a count, are put right."""
    worker = start_worker()
    message = '{"f": "create_user", "k": {"name": "x"}, "et": 0}'
    await redis.rpush("arq:job:list", "x")  # type: ignore[misc] # redis-py types sync and async alike
    await redis.mset({"arq:job:lock": message, "arq:job:count": message, "arq:retry:count": "many"})
    await redis.rpush("arq:in-progress:lock", "x")  # type: ignore[misc]
    await redis.zadd("arq:abort", {b"\xff\xfe": time.time() * 1000, b"old": 1})
    await redis.zadd("arq:queue", {"list": 1, "lock": 1, "count": 1})

    failure = await _failure(redis, "list")
    results = [await Job(job_id, redis, _deserializer=decode).result(timeout=20) for job_id in ("lock", "count")]
    after = await (await client.enqueue(CreateUser(name="After"))).result(timeout=SOON)

    assert type(failure) is MalformedMessageError
    assert [result["name"] for result in results] == ["x", "x"]
    assert after.name == "After"
    assert worker.process.poll() is None
    async with sessions() as session:
        letters = await dead_jobs(session, DeadFilter(), limit=10)
    assert [letter.job_id for letter in letters] == ["list"]


@BOTH
async def test_hostile_ids_are_dead_letters_with_their_messages(
    worker: WorkerProcess, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """A message under an id that no job may have can be read, and queued again under one that it may have."""
    assert worker.process.poll() is None
    message = b'{"f": "create_user", "k": {"name": "Jane"}, "et": 0}'
    await redis.set(b"arq:job:\xff\xfe", message)
    await redis.zadd("arq:queue", {b"\xff\xfe": 1})

    await wait_until_async(lambda: _is_empty(redis), 20)

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=10)
    assert (letter.job_id[:8], letter.message, letter.reason) == ("hostile-", message, "malformed_message")


async def _is_empty(redis: Redis) -> bool:
    queued: int = await redis.zcard("arq:queue")
    return queued == 0


async def test_a_job_without_a_message_is_a_dead_letter(
    start_worker: StartWorker, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Its message has expired, or was evicted: the producer and the operator learn of it."""
    start_worker()
    await redis.zadd("arq:queue", {"gone": 1})

    failure = await _failure(redis, "gone")

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=10)
    assert (type(failure), letter.job_id, letter.reason) == (MessageMissingError, "gone", "message_missing")


async def test_results_keep_nobodys_arguments(
    start_worker: StartWorker, client: JobClient, redis: Redis, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """What was asked is not kept for an hour beside the answer."""
    assert sessions is not None
    start_worker()
    handle = await client.enqueue(FindUser(name=NAME))
    await handle.result(timeout=SOON)

    assert b"Zenobia" not in (await redis.get(f"arq:result:{handle.job_id}") or b"")


@BOTH
async def test_an_unknown_job_ends_as_a_failure(worker: WorkerProcess, redis: Redis) -> None:
    """With the names that there are."""
    message: dict[str, object] = {"t": None, "f": "send_mail", "a": [], "k": {}, "et": 1}
    await redis.set("arq:job:unknown", json.dumps(message))
    await redis.zadd("arq:queue", {"unknown": 1})

    failure = await _failure(redis, "unknown")

    assert isinstance(failure, UnknownJobError)
    assert "create_user, get_or_create_user, find_user, create_users" in failure.message
    assert worker.process.poll() is None


@pytest.mark.usefixtures("starts_processes")
@BOTH
async def test_burst_ends_with_the_queue(
    command: str, client: JobClient, start_burst: "StartBurst", sessions: async_sessionmaker[AsyncSession]
) -> None:
    """All that is queued is done, then the process ends with 0."""
    await client.enqueue_many([CreateUser(name=f"User {number}") for number in range(50)])

    code = await asyncio.to_thread(start_burst, *COMMANDS[command], "--burst")

    async with sessions() as session:
        stored = await session.scalar(text("SELECT count(*) FROM users"))
    assert (code, stored) == (0, 50)


class StartBurst:
    """Runs a command to its end."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment

    def __call__(self, *command: str) -> int:
        """Return its exit code."""
        return warm.run(command, self._environment).returncode


@pytest.fixture
def start_burst(environment: dict[str, str]) -> StartBurst:
    """Return a function that runs a command of the worker to its end."""
    return StartBurst(environment)


def test_arqs_check_sees_the_worker(worker_of_arq: WorkerProcess, start_burst: StartBurst) -> None:
    """``arq --check`` says 0 while a worker of the queue lives, and 1 afterwards."""
    check = partial(start_burst, *COMMANDS["arq"], "--check")
    wait_until(lambda: check() == 0, 20)  # it writes its key in its first turn
    worker_of_arq.stop()

    assert check() == 1


@pytest.fixture
def worker_of_arq(start_worker: StartWorker) -> WorkerProcess:
    """Start arq's own worker class."""
    return start_worker(*COMMANDS["arq"])


async def test_the_log_names_each_job_and_nobodys_data(
    start_worker: StartWorker, client: JobClient, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Id, name, attempt and duration of every job; never what is in it."""
    assert sessions is not None
    worker = start_worker()
    done = await client.enqueue(CreateUser(name=NAME, email=EMAIL))
    await done.result(timeout=SOON)
    taken = await client.enqueue(CreateUser(name=NAME, email=EMAIL))
    with pytest.raises(EmailTakenError):
        await taken.result(timeout=SOON)
    worker.stop()

    lines = [json.loads(line) for line in worker.log.splitlines()]
    jobs = {line["job_id"]: line for line in lines if "job_id" in line}
    assert {"job_name": "create_user", "attempt": 1, "event": "job done"}.items() <= jobs[done.job_id].items()
    assert {"job_name": "create_user", "reason": "email_taken", "event": "job refused"}.items() <= jobs[
        taken.job_id
    ].items()
    assert jobs[done.job_id]["duration_ms"] > 0
    assert all(0 <= jobs[job.job_id]["waited_ms"] < 60_000 for job in (done, taken))
    assert find_leaks("the log", worker.log) == []
