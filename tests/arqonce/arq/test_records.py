"""Functions in a worker that has a ledger: a receipt after success, a dead letter after a failure for good."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Retry
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import encode
from arqonce.arq.records import FunctionRecords
from arqonce.arq.worker import Worker
from arqonce.connection.requeue import requeue
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.execution.gate import DatabaseGate
from arqonce.ledger.dead_jobs import DeadLetter, insert_new_dead_letters
from arqonce.ledger.function_receipts import Success
from arqonce.ledger.tables import DeadJob, JobReceipt
from arqonce.work import Claim
from tests import warm
from tests.arqonce.arq.test_service import HERE, ROOT
from tests.arqonce.conftest import BuildWorker, Context, build_function
from tests.faults.proxy import Proxy, open_proxy

QUEUE = "arq:queue"
Sessions = async_sessionmaker[AsyncSession]


async def _letters(sessions: Sessions) -> Sequence[DeadJob]:
    async with sessions() as session:
        return (await session.scalars(select(DeadJob).order_by(DeadJob.job_id))).all()


async def _receipts(sessions: Sessions) -> Sequence[JobReceipt]:
    async with sessions() as session:
        return (await session.scalars(select(JobReceipt).order_by(JobReceipt.finished_at))).all()


async def _run(build: BuildWorker, sessions: Sessions, *functions: Any, **arguments: object) -> Worker:  # noqa: ANN401 - see build
    """Run a worker with a ledger until its queue is empty."""
    worker = await build(*functions, **arguments)
    worker.records = FunctionRecords(sessions, DatabaseGate(sessions))
    await worker.async_run()
    return worker


async def _deliver_again(redis: Redis, job_id: str, message: bytes) -> None:
    """Do as a Redis that has lost the end of a job: it was restarted from an older state."""
    await redis.delete(f"arq:result:{job_id}")
    await redis.set(f"arq:job:{job_id}", message)
    await redis.zadd(QUEUE, {job_id: 1_000})


async def test_what_has_succeeded_once_is_not_run_again(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """The same message answers with the same result, whatever Redis has forgotten."""
    runs: list[int] = []

    async def count(_ctx: Context) -> int:
        runs.append(1)
        return len(runs)

    await pool.enqueue_job("count", _job_id="nightly")
    message = await redis.get("arq:job:nightly")
    await _run(build, sessions, count)
    result = await redis.get("arq:result:nightly")

    await _deliver_again(redis, "nightly", message)
    await _run(build, sessions, count)

    assert runs == [1]
    assert await redis.get("arq:result:nightly") == result
    (receipt,) = await _receipts(sessions)
    assert (receipt.job_name, receipt.attempt, receipt.job_id.partition("@")[0]) == ("count", 1, "nightly")


async def test_an_id_may_be_used_again_as_in_arq(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """When its result has expired: that is another job."""
    runs: list[int] = []

    async def count(_ctx: Context) -> None:
        runs.append(1)

    for _ in range(2):
        await pool.enqueue_job("count", _job_id="nightly")
        await _run(build, sessions, count)
        await redis.delete("arq:result:nightly")
        await asyncio.sleep(0.002)  # the time of enqueueing is in milliseconds

    assert len(runs) == len(await _receipts(sessions)) == 2


async def test_a_failure_for_good_is_a_dead_letter_that_can_be_retried(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """With its message, byte for byte; its success takes the letter away."""
    is_cured = False

    async def fail(_ctx: Context, name: str) -> str:
        if not is_cured:
            raise ValueError(name)
        return name

    job = await pool.enqueue_job("fail", "Jane", _job_id="report 1")
    message = await redis.get("arq:job:report 1")
    await _run(build, sessions, fail)
    (letter,) = await _letters(sessions)

    is_cured = True
    await redis.delete("arq:result:report 1")
    await requeue(redis, str(letter.queue), {letter.job_id: letter.message})
    await _run(build, sessions, fail)

    assert (letter.job_id, letter.job_name, letter.reason, letter.message) == (
        "report 1",
        "fail",
        "ValueError",
        message,
    )
    assert job is not None
    assert await job.result(timeout=2) == "Jane"
    assert await _letters(sessions) == []


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_failure_of_what_another_worker_has_done_is_no_letter_that_stays(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions, *, is_first: bool
) -> None:
    """A worker stood still for longer than a timeout, which it meets then; its job was run elsewhere meanwhile.

    A letter that was written before that, unseen, goes when the job is delivered again: a retry must help.
    """
    records = FunctionRecords(sessions, DatabaseGate(sessions))
    await pool.enqueue_job("stand_still", _job_id="j1")
    message = await redis.get("arq:job:j1")
    claim = Claim(b"j1", "j1", "other", 2, message, b"0", is_aborted=False, trouble=None)

    async def do_elsewhere() -> None:
        await records.succeeded(claim, job_name="stand_still", attempt=2, success=Success(b"done"))

    async def stand_still(_ctx: Context) -> None:
        if is_first:
            await do_elsewhere()
        raise TimeoutError

    await _run(build, sessions, stand_still)
    letters, result = await _letters(sessions), await redis.get("arq:result:j1")
    if not is_first:
        await do_elsewhere()
        async with sessions.begin() as session:
            for letter in letters:
                await session.merge(letter)

    await _deliver_again(redis, "j1", message)
    await _run(build, sessions, stand_still)

    assert (len(letters), result == b"done") == ((0, True) if is_first else (1, False))
    assert (await _letters(sessions), await redis.get("arq:result:j1")) == ([], b"done")


async def test_a_success_removes_a_letter_that_knew_no_function(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """A registry beside the functions has written it, without a hash, for a message that it could not read."""

    async def work(_ctx: Context) -> None:
        pass

    await pool.enqueue_job("work", _job_id="a")
    message = await redis.get("arq:job:a")
    letter = DeadLetter(
        job_id="a", job_name=None, message=message, reason="malformed_message", explanation="", error="",
        sqlstate=None, attempts=1, queue=QUEUE,
    )  # fmt: skip
    async with sessions.begin() as session:
        await insert_new_dead_letters(session, {letter.job_id: letter})

    await _run(build, sessions, work)

    assert await _letters(sessions) == []


async def test_what_cannot_be_run_is_a_dead_letter_with_its_reason(
    pool: ArqRedis, redis: Redis, build: BuildWorker, sessions: Sessions
) -> None:
    """Unknown function, unreadable message, used-up tries; an abort and an expired message are none.

    PostgreSQL's indices take no name of such a length, and no text with U+0000; its integers no such number of tries.
    """

    async def retry(_ctx: Context) -> None:
        raise Retry

    await pool.enqueue_job("gone", _job_id="1")
    await pool.enqueue_job("retry", _job_id="2")
    await _deliver_again(redis, "3", b"no message")
    await redis.zadd(QUEUE, {"4": 1_000})
    aborted = await pool.enqueue_job("retry", _job_id="5", _defer_by=0.01)
    assert aborted is not None
    await redis.zadd("arq:abort", {"5": 1_000})
    await pool.enqueue_job(f"\0{os.urandom(50_000).hex()}", _job_id="6")
    message: dict[str, Any] = {"t": None, "f": "retry", "a": [], "k": {}, "et": 1}
    await _deliver_again(redis, "7", encode(message | {"et": time.time_ns()}))
    await _deliver_again(redis, "8", encode(message | {"t": 10**12}))

    await _run(build, sessions, build_function(retry, max_tries=2), allow_abort_jobs=True)

    found = {letter.job_id: (letter.reason, letter.message[:10]) for letter in await _letters(sessions)}
    assert {job_id: reason for job_id, (reason, _) in found.items()} == {
        "1": "unknown_job",
        "2": "attempts_exhausted",
        "3": "malformed_message",
        "6": "unknown_job",
        "7": "malformed_message",
        "8": "attempts_exhausted",
    }
    assert found["3"][1] == b"no message"


@pytest.fixture
async def cut_off(database: DatabaseSettings) -> AsyncIterator[tuple[Proxy, Sessions]]:
    """Yield a way to PostgreSQL that can be cut, and sessions that take it."""
    url = database.url.get_secret_value()
    port = urlsplit(url).port or 0
    with open_proxy(port) as proxy:
        settings = DatabaseSettings(url=SecretStr(url.replace(f":{port}/", f":{proxy.port}/")))
        async with open_database(settings, pool_size=5) as sessions:
            yield proxy, sessions


async def test_an_outage_in_the_middle_of_a_job_loses_no_record(
    pool: ArqRedis, build: BuildWorker, sessions: Sessions, cut_off: tuple[Proxy, Sessions]
) -> None:
    """The worker waits until the ledger is there again, and starts nothing meanwhile."""
    proxy, through = cut_off
    started: list[str] = []

    async def cut(ctx: Context) -> None:
        started.append(ctx["job_id"])
        if len(started) == 1:
            proxy.is_closed = True
            proxy.cut()
            asyncio.get_running_loop().call_later(1.5, proxy.heal)

    await pool.enqueue_job("cut", _job_id="a")
    await pool.enqueue_job("cut", _job_id="b", _defer_by=0.3)
    await _run(build, through, cut)

    assert started == ["a", "b"]
    assert [receipt.job_id[0] for receipt in await _receipts(sessions)] == ["a", "b"]


@pytest.fixture
def burst(
    redis: Redis, valkey_url: str, environment: dict[str, str], tmp_path: Path, starts_processes: None
) -> Callable[..., str]:
    """Return a function that runs a worker of the afternoon service until its queue is empty, and returns its log."""
    assert (redis is not None, starts_processes) == (True, None)  # the queue is empty
    own = {
        "SERVICE_REDIS": valkey_url,
        "EFFECTS": str(tmp_path / "effects"),
        "PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)]),
    }

    def run(**more: str) -> str:
        command = [sys.executable, "-m", "arqonce", "run", "--settings", "afternoon.WorkerSettings", "--burst"]
        done = warm.run(command, environment | own | more)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


async def test_the_commands_list_and_retry_what_a_service_could_not_do(
    burst: Callable[..., str], redis: Redis, valkey_url: str, environment: dict[str, str], sessions: Sessions
) -> None:
    """``arqonce dead`` reads the same ledger; what it puts back runs again."""
    settings = RedisSettings.from_dsn(valkey_url)
    async with await create_pool(settings, default_queue_name="afternoon", job_serializer=encode) as pool:
        await pool.enqueue_job("fail", "Jane", _job_id="f1")
        await pool.enqueue_job("add", 1, 2, _job_id="a1")

    log = await asyncio.to_thread(burst)
    listed = warm.run([sys.executable, "-m", "arqonce", "dead", "list", "--json"], environment)
    retried = warm.run([sys.executable, "-m", "arqonce", "dead", "retry", "f1"], environment)
    await redis.delete("arq:result:f1")
    await asyncio.to_thread(burst)

    (letter,) = json.loads(listed.stdout)
    assert (letter["job_id"], letter["job_name"], letter["attempts"]) == ("f1", "fail", 1)
    assert retried.stdout == "put back 1\n"
    assert await redis.exists("arq:result:f1")
    assert [receipt.job_name for receipt in await _receipts(sessions)] == ["add"]
    assert "Jane" not in log


def test_a_start_without_its_database_tells_that_and_calls_no_hook(
    burst: Callable[..., str], postgres_url: str, tmp_path: Path
) -> None:
    """The service's shutdown hook relies on its startup hook, which was not called: it would hide the reason."""
    name = postgres_url.rpartition("/")[0] + "/nowhere"

    with pytest.raises(AssertionError, match="has no such database"):
        burst(DATABASE_URL=name)

    assert not (tmp_path / "effects").exists()


@pytest.mark.parametrize(
    ("url", "warning"),
    [
        ("mysql://root@127.0.0.1/shop", "is not PostgreSQL's"),
        ("postgresql+psycopg://root@127.0.0.1/shop", "is not PostgreSQL's"),
        (None, "without a ledger"),
    ],
)
def test_a_database_of_the_services_own_hinders_nothing(
    url: str | None, warning: str, burst: Callable[..., str], postgres_url: str
) -> None:
    """DATABASE_URL is a name that many services use: the worker says what it does without."""
    log = burst(DATABASE_URL=url or f"{postgres_url.rpartition('/')[0]}/template1")

    assert warning in log
    assert "service ready" in log
