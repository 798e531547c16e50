"""The producer's client, on a real queue without a worker, and its wire format."""

import asyncio
import json
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus
from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from arqonce import JobClient, SyncJobClient
from arqonce.connection.direct import DirectConnection
from arqonce.embedded import open_valkey
from arqonce.failures import (
    InvalidMessageError,
    InvalidResultError,
    JobAbortedError,
    QueueUnavailableError,
    ResultMissingError,
)
from arqonce.outbox import enqueue_many_in
from arqonce.wire.codec import decode, encode
from jobs import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser
from jobs.payloads import EmailTakenError, UserView
from tests.conftest import wait_until_empty

JANE = CreateUser(name="Jane")


async def _finish(redis: Redis, job_id: str, result: object, *, success: bool = True) -> None:
    await redis.set(f"arq:result:{job_id}", encode({"s": success, "r": result}))
    await redis.zrem("arq:queue", job_id)


async def test_a_refused_job_leaves_nothing_behind(redis: Redis, valkey_url: str) -> None:
    """Its message without its place in the queue would make the next try a duplicate of a job that never runs."""
    await redis.set("no-queue", "a string")
    async with JobClient(valkey_url, queue="no-queue") as client:
        with pytest.raises(QueueUnavailableError):
            await client.enqueue(JANE, key="once")

        await redis.delete("no-queue")
        handle = await client.enqueue(JANE, key="once")

    assert (handle.is_new, await redis.zscore("no-queue", "once") is not None) == (True, True)


async def test_a_job_lies_in_redis_as_arq_puts_it(client: JobClient, redis: Redis) -> None:
    """Keys, fields, score and expiry are arq's; fields that were not given are left to the worker."""
    before = time.time() * 1000

    handle = await client.enqueue(JANE)

    message = json.loads(await redis.get(f"arq:job:{handle.job_id}"))
    score = await redis.zscore("arq:queue", handle.job_id)
    assert handle.is_new
    assert message == {"t": None, "f": "create_user", "a": [], "k": {"name": "Jane"}, "et": score}
    assert before - 1 <= score <= time.time() * 1000
    assert timedelta(days=6) < timedelta(milliseconds=await redis.pttl(f"arq:job:{handle.job_id}")) <= timedelta(days=7)


async def test_arq_itself_reads_our_job(client: JobClient, valkey_url: str) -> None:
    """``queued_jobs()`` and ``Job.status()`` of plain arq work on what we enqueue."""
    handle = await client.enqueue(JANE, delay=timedelta(minutes=1))

    arq = ArqRedis(ConnectionPool.from_url(valkey_url), job_deserializer=decode)
    jobs = await arq.queued_jobs()
    status = await Job(handle.job_id, arq, _deserializer=decode).status()
    await arq.aclose(close_connection_pool=True)

    assert [(job.job_id, job.function, job.kwargs) for job in jobs] == [
        (handle.job_id, "create_user", {"name": "Jane"})
    ]
    assert status is JobStatus.deferred


async def test_a_key_enqueues_once_among_fifty_calls_at_once(client: JobClient, redis: Redis) -> None:
    """Exactly one call is told that it was new."""
    handles = await asyncio.gather(*(client.enqueue(JANE, key="jane") for _ in range(50)))

    assert sorted(handle.is_new for handle in handles) == [False] * 49 + [True]
    assert await redis.zcard("arq:queue") == 1


async def test_a_key_is_taken_as_long_as_its_result_is_kept(client: JobClient, redis: Redis) -> None:
    """Finished is a duplicate too, and its handle has the result; forgotten is new."""
    await client.enqueue(JANE, key="jane")
    await redis.delete("arq:job:jane")
    await _finish(redis, "jane", {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"})

    again = await client.enqueue(JANE, key="jane")
    result = await again.result()
    await redis.delete("arq:result:jane")
    later = await client.enqueue(JANE, key="jane")

    assert (again.is_new, later.is_new) == (False, True)
    assert isinstance(result, UserView)


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 201, "new\nline"])
async def test_a_key_that_cannot_be_an_id_is_refused(client: JobClient, redis: Redis, key: str) -> None:
    """Nothing is sent."""
    with pytest.raises(InvalidMessageError, match="the key must be"):
        await client.enqueue(JANE, key=key)

    await wait_until_empty(redis)


async def test_delay_and_at_defer_the_job(client: JobClient, redis: Redis) -> None:
    """The score is when the job is due, in ms."""
    at = datetime.now(UTC) + timedelta(hours=2)

    delayed = await client.enqueue(JANE, delay=timedelta(hours=1))
    dated = await client.enqueue(JANE, at=at)

    now = time.time() * 1000
    assert await redis.zscore("arq:queue", delayed.job_id) == pytest.approx(now + 3_600_000, abs=5000)
    assert await redis.zscore("arq:queue", dated.job_id) == round(at.timestamp() * 1000)
    assert await redis.pttl(f"arq:job:{dated.job_id}") > 7 * 86_400_000


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ({"delay": timedelta(1), "at": datetime(2100, 1, 1, tzinfo=UTC)}, "not both"),
        ({"at": datetime(2100, 1, 1)}, "no time zone"),  # noqa: DTZ001 - the mistake under test
        ({"delay": timedelta(-1)}, "negative"),
    ],
)
async def test_a_wrong_time_is_refused(client: JobClient, when: dict[str, object], text: str) -> None:
    """The error says which."""
    with pytest.raises(InvalidMessageError, match=text):
        await client.enqueue(JANE, **when)  # type: ignore[arg-type] # parametrised


async def test_enqueue_many_keeps_order_and_keys(client: JobClient, redis: Redis) -> None:
    """More than one pipeline, duplicates among them: one handle for each payload, in order."""
    await client.enqueue(CreateUser(name="3"), key="k3")

    handles = await client.enqueue_many(
        (CreateUser(name=str(number)) for number in range(1200)), keys=[f"k{number}" for number in range(1200)]
    )

    assert [handle.job_id for handle in handles] == [f"k{number}" for number in range(1200)]
    assert [handle.job_id for handle in handles if not handle.is_new] == ["k3"]
    assert await redis.zcard("arq:queue") == 1200
    assert decode(await redis.get("arq:job:k1199"))["k"] == {"name": "1199"}


async def test_others_have_turns_while_many_are_encoded(client: JobClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop of a service, or of a worker whose handler promised 100,000, stood still for four seconds."""
    monkeypatch.setattr("arqonce.client.requests._TURN", timedelta(0))
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(take_turns())
    with pytest.raises(InvalidMessageError):  # after all others have been encoded, and before anything is sent
        await client.enqueue_many([JANE] * 20 + [CreateUser.model_construct(name="")])
    of_client, turns = turns, 0
    async with AsyncSession(create_async_engine("postgresql+asyncpg://nobody@127.0.0.1:1/none")) as session:
        with pytest.raises(InvalidMessageError):
            await enqueue_many_in(session, [JANE] * 20 + [CreateUser.model_construct(name="")])
    others.cancel()

    assert min(of_client, turns) >= 20


async def test_enqueue_many_defers_all(client: JobClient, valkey_url: str, redis: Redis) -> None:
    """With the options of ``enqueue``, in both clients."""
    at = datetime.now(UTC) + timedelta(hours=1)
    with SyncJobClient(valkey_url) as blocking:
        handles = [
            *await client.enqueue_many([JANE, JANE], at=at),
            *await client.enqueue_many([JANE], delay=timedelta(hours=1)),
            *blocking.enqueue_many([JANE], at=at),
            *blocking.enqueue_many([JANE], delay=timedelta(hours=1)),
        ]

    scores = [await redis.zscore("arq:queue", handle.job_id) or 0 for handle in handles]
    assert [abs(score - at.timestamp() * 1000) < 10_000 for score in scores] == [True] * 5


async def test_enqueue_many_wants_one_key_for_each(client: JobClient) -> None:
    """A lost key would be a lost job."""
    with pytest.raises(InvalidMessageError, match="2 payloads and 1 keys"):
        await client.enqueue_many([JANE, JANE], keys=["a"])


async def test_a_large_payload_is_refused_before_it_is_sent(client: JobClient, redis: Redis) -> None:
    """The producer learns it at once."""
    names = [NewUser(name="\U0001f600" * 200, email=f"{'x' * 60}@{'y' * 180}.org") for _ in range(1000)]

    with pytest.raises(InvalidMessageError, match="split it"):
        await client.enqueue(CreateUsers(users=names))

    await wait_until_empty(redis)


async def test_a_failure_is_raised_as_its_type(client: JobClient, redis: Redis) -> None:
    """The producer can tell failures apart without reading texts."""
    handle = await client.enqueue(GetOrCreateUser(name="J", email="j@example.org"))
    await _finish(redis, handle.job_id, EmailTakenError("taken"), success=False)

    with pytest.raises(EmailTakenError):
        await handle.result()


async def test_an_aborted_job_is_a_failure_and_no_cancellation(client: JobClient, redis: Redis) -> None:
    """A CancelledError would look like one of the caller's own task."""
    handle = await client.enqueue(JANE)
    await _finish(redis, handle.job_id, asyncio.CancelledError(), success=False)

    with pytest.raises(JobAbortedError):
        await handle.result()


async def test_the_answer_of_another_kind_of_job_says_so(client: JobClient, redis: Redis) -> None:
    """One key for two kinds of jobs: the error names the mistake and hides the answer."""
    handle = await client.enqueue(FindUser(name="x"), key="k")
    await _finish(redis, "k", {"id": 4, "name": "Secret Person", "email": None, "created_at": "2026-01-01T00:00:00Z"})

    with pytest.raises(InvalidResultError, match="was its key used for another kind of job") as caught:
        await handle.result()

    assert "Secret" not in str(caught.value)


async def test_a_time_long_past_means_now(client: JobClient, redis: Redis) -> None:
    """The job keeps its full time to be started."""
    handle = await client.enqueue(JANE, at=datetime(1970, 1, 1, tzinfo=UTC))

    assert await redis.pttl(f"arq:job:{handle.job_id}") > 6 * 86_400_000


async def test_many_calls_fail_as_soon_as_one_of_them_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Redis is away each call takes about a second, and a hundred thousand jobs need 200 of them."""
    calls = 0

    async def fail(*_arguments: object) -> None:
        nonlocal calls
        calls += 1
        raise RedisConnectionError

    producer = JobClient("redis://127.0.0.1:1", retries=0)
    monkeypatch.setattr(DirectConnection, "run", fail)
    with pytest.raises(QueueUnavailableError):
        await producer.enqueue_many([JANE] * 5000)
    await producer.aclose()

    assert calls <= 4


async def test_a_call_that_is_cut_off_by_the_end_of_its_client_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be carried out after that, on a connection that nobody closes."""
    calls = 0
    producer = JobClient("redis://127.0.0.1:1")

    async def be_cut_off(*_arguments: object) -> None:
        nonlocal calls
        calls += 1
        await producer.aclose()
        raise RedisConnectionError

    monkeypatch.setattr(DirectConnection, "run", be_cut_off)
    with pytest.raises(QueueUnavailableError, match="the client was closed during the call"):
        await producer.enqueue(JANE)

    assert calls == 1


async def test_many_more_callers_than_connections_wait_for_each_other(client: JobClient, redis: Redis) -> None:
    """Two thousand results at once are no outage of Redis."""
    handles = await client.enqueue_many([JANE] * 2000)
    answer = {"id": 1, "name": "Jane", "email": None, "created_at": "2026-01-01T00:00:00Z"}
    waiting = asyncio.gather(*(handle.result(timeout=timedelta(seconds=60)) for handle in handles))
    for handle in handles:
        await _finish(redis, handle.job_id, answer)

    assert len(await waiting) == 2000


async def test_no_result_in_time_leaves_the_job(client: JobClient, redis: Redis) -> None:
    """The error says so, and waiting again is possible."""
    handle = await client.enqueue(JANE)

    with pytest.raises(TimeoutError, match="is a worker running"):
        await handle.result(timeout=timedelta(milliseconds=50))

    assert await redis.zcard("arq:queue") == 1


async def test_a_job_that_is_nowhere_has_no_result(client: JobClient, redis: Redis) -> None:
    """Waiting for ever for a lost result helps nobody."""
    handle = await client.enqueue(JANE)
    await redis.flushall()

    with pytest.raises(ResultMissingError):
        await handle.result(timeout=timedelta(seconds=5))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://127.0.0.1:1/0", "Redis at 127.0.0.1:1/0 cannot be reached"),
        ("redis://user:hidden-word@127.0.0.1:1/0", "Redis at 127.0.0.1:1/0 cannot be reached"),
        ("redis://:pass#hidden-word@127.0.0.1:1/0", "REDIS_URL is not a URL such as"),
        ("redis://127.0.0.1:1/0?hidden-word=1", "REDIS_URL is not a URL such as"),
        ("redis://[::1", "REDIS_URL is not a URL such as"),
        ("unix:///no/such/socket", "Redis at /no/such/socket cannot be reached"),
        ("http://hidden-word", "REDIS_URL is not a URL such as"),
    ],
)
async def test_a_redis_that_is_not_there_is_one_clear_error(url: str, text: str) -> None:
    """On opening, with the cure and without the password."""
    with pytest.raises(QueueUnavailableError) as caught:
        async with JobClient(url):
            pass

    assert text in str(caught.value)
    assert "hidden-word" not in str(caught.value)


async def test_wrong_credentials_are_one_clear_error(valkey_url: str) -> None:
    """Redis' own refusal is told with its cure."""
    with pytest.raises(QueueUnavailableError, match="refuses the user or password: correct REDIS_URL"):
        async with JobClient(valkey_url.replace("redis://", "redis://nobody:wrong@")):
            pass


@pytest.mark.usefixtures("starts_processes")
async def test_a_missing_password_is_one_clear_error(tmp_path: Path) -> None:
    """Not a recursion of redis-py's."""
    with open_valkey(tmp_path) as server:
        async with Redis.from_url(server.url) as redis:
            await redis.config_set("requirepass", "hidden-word")

        with pytest.raises(QueueUnavailableError, match="requires a password: set REDIS_PASSWORD"):
            async with JobClient(server.url):
                pass


@pytest.mark.usefixtures("starts_processes")
def test_a_producer_loads_no_driver() -> None:
    """Importing the producer's side needs neither SQLAlchemy nor arq."""
    program = (
        "import sys, jobs; from arqonce import JobClient, SyncJobClient, enqueue_in, JobFailedError, JobStatus; "
        "heavy = {'sqlalchemy', 'asyncpg', 'alembic', 'arq', 'db', 'worker', 'structlog', 'typer', 'gevent'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
