"""The relay: what is promised is given, whatever becomes of Redis, of the relay, or of either's memory."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.dead_jobs import DeadFilter, dead_jobs
from db.outbox import count_promises, whereabouts
from embedded import open_valkey
from jobs import CreateUser, FindUser, GetOrCreateUser, JobClient
from jobs.failures import EmailTakenError, RequestConflictError
from jobs.outbox import enqueue_in
from jobs.payloads import AnyPayload
from jobs.registry import REGISTRY
from jobs.wire import conflict_id, request_hash
from tests.conftest import StartWorker
from worker.dead_letters import bury, write_letter
from worker.dispatch import Delivery, Dispatcher
from worker.epoch import RedisEpoch
from worker.relay import Relay, open_relay
from worker.settings import QueueSettings, Settings, WorkerSettings
from worker.wakeup import Wakeup

Sessions = async_sessionmaker[AsyncSession]
KEEP = timedelta(days=29)
JANE = CreateUser(name="Jane", email="jane@example.org")


def _relay(sessions: Sessions, redis: Redis, keep: timedelta = KEEP) -> Relay:
    return Relay(sessions, redis, queue="arq:queue", keep=keep, wakeup=None)


async def _promise(sessions: Sessions, payload: AnyPayload, key: str, **options: object) -> None:
    async with sessions.begin() as session:
        await enqueue_in(session, payload, key=key, **options)  # type: ignore[arg-type] # handed on


async def _execute(sessions: Sessions, statement: str) -> None:
    async with sessions.begin() as session:
        await session.execute(text(statement))


async def _where(sessions: Sessions, *job_ids: str) -> dict[str, list[str]]:
    async with sessions() as session:
        return dict(await whereabouts(session, job_ids))


async def _until(is_so: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await is_so():
            await asyncio.sleep(0.01)


async def test_a_promise_is_given_as_a_client_would_have_sent_it(sessions: Sessions, redis: Redis) -> None:
    """Message, score and expiry; once: the next looks find nothing."""
    await _promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)

    turns = [await relay.turn() for _ in range(3)]

    message = json.loads(await redis.get("arq:job:jane"))
    score = await redis.zscore("arq:queue", "jane")
    assert turns == [1, 0, 0]
    assert message | {"et": 0} == {
        "t": None, "f": "create_user", "a": [], "k": {"name": "Jane", "email": "jane@example.org"}, "et": 0
    }  # fmt: skip
    assert score == message["et"]
    assert timedelta(days=6) < timedelta(milliseconds=await redis.pttl("arq:job:jane")) <= timedelta(days=7)


async def test_a_deferred_job_is_given_shortly_before_it_is_due(sessions: Sessions, redis: Redis) -> None:
    """With its due time as its score; what is due later stays in PostgreSQL."""
    await _promise(sessions, JANE, "soon", delay=timedelta(seconds=8))
    await _promise(sessions, JANE, "later", delay=timedelta(seconds=60))

    await _relay(sessions, redis).turn()

    queued = await redis.zrange("arq:queue", 0, -1, withscores=True)
    assert [job_id for job_id, _ in queued] == [b"soon"]
    assert 5_000 < queued[0][1] - time.time() * 1000 < 8_100


async def test_waiting_and_running_jobs_are_left_alone(sessions: Sessions, redis: Redis) -> None:
    """Given again, a job whose score was moved by its lease stays where it is, with the message that it has."""
    await _promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)
    await relay.turn()
    await redis.zadd("arq:queue", {"jane": 9e12})
    await redis.set("arq:job:jane", "mine")
    await _execute(sessions, "UPDATE job_outbox SET give_at = now()")

    given = await relay.turn()

    assert given == 1
    assert (await redis.zscore("arq:queue", "jane"), await redis.get("arq:job:jane")) == (9e12, b"mine")


@pytest.mark.parametrize("lost", ["arq:job:jane", "arq:queue"])
async def test_a_single_lost_key_is_found_by_age(sessions: Sessions, redis: Redis, lost: str) -> None:
    """A job that has not ended is given again after 30 s, then 1 min, ... 10 min."""
    await _promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)
    waits = []
    for _ in range(8):
        await relay.turn()
        async with sessions.begin() as session:
            waits.append(await session.scalar(text("SELECT give_at - dispatched_at FROM job_outbox")))
            await session.execute(text("UPDATE job_outbox SET give_at = now()"))
    await redis.delete(lost)

    await relay.turn()

    assert waits == [timedelta(seconds=seconds) for seconds in (30, 60, 120, 240, 480, 600, 600, 600)]
    assert await redis.exists("arq:job:jane") == 1
    assert await redis.zcard("arq:queue") == 1


async def test_a_wiped_redis_is_given_everything_again_once(sessions: Sessions, redis: Redis) -> None:
    """Also if several relays notice it at once; a lost connection alone gives nothing again."""
    for number in range(20):
        await _promise(sessions, CreateUser(name=f"n{number}"), f"j{number}")
    await _relay(sessions, redis).turn()
    await redis.connection_pool.disconnect()
    after_cut = await _relay(sessions, redis).turn()
    await redis.flushall()

    given = await asyncio.gather(*(_relay(sessions, redis).turn() for _ in range(6)))

    async with sessions() as session:
        dispatches = set(await session.scalars(text("SELECT dispatches FROM job_outbox")))
    assert (after_cut, sum(given), await redis.zcard("arq:queue")) == (0, 20, 20)
    assert dispatches == {1}  # a new epoch is no reason for longer waits


async def test_relays_that_notice_at_once_agree_on_one_epoch(sessions: Sessions, redis: Redis) -> None:
    """Otherwise the jobs would be given once for each of them."""
    await redis.ping()

    epochs = await asyncio.gather(*(RedisEpoch(redis, sessions, "arq:queue").read() for _ in range(10)))

    assert len(set(epochs)) == 1
    assert await RedisEpoch(redis, sessions, "arq:queue").read() == epochs[0]


async def test_another_process_of_redis_begins_an_epoch(sessions: Sessions, tmp_path: Path) -> None:
    """Restarted, or a replica after a failover: it may have forgotten the last second."""
    epochs: list[int] = []
    for _ in range(2):
        with open_valkey(tmp_path) as server:
            redis = Redis.from_url(server.url)
            await redis.set("survives", 1, nx=True)
            epochs += [await RedisEpoch(redis, sessions, "arq:queue").read() for _ in range(2)]
            await redis.bgrewriteaof()
            await redis.aclose()

    assert epochs[0] == epochs[1] < epochs[2] == epochs[3]


async def test_four_relays_give_each_of_five_thousand_jobs_once(sessions: Sessions, redis: Redis) -> None:
    """None is taken by two, none is left."""
    async with sessions.begin() as session:
        for number in range(5000):
            await enqueue_in(session, CreateUser(name=f"n{number}"), key=f"j{number}")
    relays = [_relay(sessions, redis) for _ in range(4)]

    async def drain(relay: Relay) -> int:
        total = 0
        while given := await relay.turn():
            total += given
        return total

    given = await asyncio.gather(*(drain(relay) for relay in relays))

    async with sessions() as session:
        dispatches = set(await session.scalars(text("SELECT dispatches FROM job_outbox")))
    assert (sum(given), await redis.zcard("arq:queue"), dispatches) == (5000, 5000, {1})


async def test_jobs_of_another_queue_are_left_to_its_relays(sessions: Sessions, redis: Redis) -> None:
    """They may be on another Redis."""
    await _promise(sessions, JANE, "theirs", queue="other")

    given = await _relay(sessions, redis).turn()

    async with sessions() as session:
        owed = [await count_promises(session, queue) for queue in ("arq:queue", "other")]
    assert (given, owed) == (0, [0, 1])


async def test_a_key_of_a_wrong_type_stops_no_other_job(sessions: Sessions, redis: Redis) -> None:
    """It is told, and tried again by age."""
    await _promise(sessions, JANE, "first")
    await redis.set("arq:queue", "x")
    relay = _relay(sessions, redis)
    await relay.turn()
    await redis.delete("arq:queue")
    await _execute(sessions, "UPDATE job_outbox SET give_at = now()")

    await relay.turn()

    assert await redis.zrange("arq:queue", 0, -1) == [b"first"]


async def test_a_message_that_redis_does_not_take_stops_no_other(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger than proto-max-bulk-len, it breaks off the whole pipeline; the others are given one by one."""
    monkeypatch.setattr("worker.relay.JOB_KEY", "arq:job:")
    for number in range(5):
        await _promise(sessions, CreateUser(name=f"n{number}"), f"j{number}")
    await _execute(sessions, "ALTER TABLE job_outbox DROP CONSTRAINT job_outbox_message_size_check")
    await _execute(sessions, "UPDATE job_outbox SET message = decode(repeat('78', 2000000), 'hex') WHERE job_id = 'j2'")
    with open_valkey(tmp_path) as server:
        redis = Redis.from_url(server.url)
        await redis.config_set("proto-max-bulk-len", 1024 * 1024)

        await _relay(sessions, redis).turn()

        queued = sorted(await redis.zrange("arq:queue", 0, -1))
        await redis.aclose()
    await _execute(sessions, "TRUNCATE job_outbox")
    await _execute(
        sessions,
        "ALTER TABLE job_outbox ADD CONSTRAINT job_outbox_message_size_check CHECK (octet_length(message) <= 1048576)",
    )
    assert queued == [b"j0", b"j1", b"j3", b"j4"]


async def test_jobs_that_could_not_be_given_are_due_again_at_once(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis went between the look and the giving; the waits do not grow by it."""
    await _promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)

    async def fail(_promises: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(relay, "_give", fail)
        failed = [await relay.turn() for _ in range(2)]
    given = await relay.turn()

    async with sessions() as session:
        assert await session.scalar(text("SELECT dispatches FROM job_outbox")) == 1
    assert (failed, given) == ([0, 0], 1)


async def test_a_job_that_is_older_than_receipts_is_dead_not_run(sessions: Sessions, redis: Redis) -> None:
    """It could have taken effect so long ago that nobody remembers; one that is due late is not old."""
    await _promise(sessions, JANE, "old")
    await _promise(sessions, JANE, "deferred")
    await _promise(sessions, JANE, "younger")
    await _execute(sessions, "UPDATE job_outbox SET created_at = created_at - interval '40 days'")
    await _execute(sessions, "UPDATE job_outbox SET due_at = due_at - interval '40 days' WHERE job_id = 'old'")
    await _execute(sessions, "UPDATE job_outbox SET due_at = due_at - interval '28 days' WHERE job_id = 'younger'")

    await _relay(sessions, redis).turn()

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=9)
    assert (letter.job_id, letter.reason) == ("old", "promise_expired")
    assert await _where(sessions, "old", "deferred", "younger") == {
        "old": ["dead"], "deferred": ["outbox"], "younger": ["outbox"]
    }  # fmt: skip
    assert sorted(await redis.zrange("arq:queue", 0, -1)) == [b"deferred", b"younger"]
    assert await redis.pttl("arq:job:younger") < timedelta(days=1, minutes=1) / timedelta(milliseconds=1)


async def test_an_outage_of_redis_is_waited_out(
    sessions: Sessions, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told once, and what was promised meanwhile is given within 2 s of Redis' return."""
    with open_valkey(tmp_path) as server:
        url = server.url
    port = url.rpartition(":")[2].partition("/")[0]
    here = Settings(settings.database, QueueSettings(url=SecretStr(url)), WorkerSettings())
    async with open_relay(sessions, here):
        await _promise(sessions, JANE, "jane")
        await asyncio.sleep(1.5)  # several turns without Redis
        with open_valkey(tmp_path, settings={"port": port}):
            returned = time.perf_counter()
            redis = Redis.from_url(url)

            async def is_given() -> bool:
                return bool(await redis.zcard("arq:queue"))

            await _until(is_given)
            took = time.perf_counter() - returned
            await redis.aclose()

    assert took < 2
    assert capsys.readouterr().out.count("the relay waits") == 1


@asynccontextmanager
async def _running(sessions: Sessions, settings: Settings) -> AsyncIterator[Relay]:
    async with open_relay(sessions, settings) as relay:
        if relay.wakeup is not None:
            wakeup = relay.wakeup

            async def listens() -> bool:
                return wakeup.is_listening

            await _until(listens)
        yield relay


@pytest.mark.parametrize("pgbouncer", [False, True])
async def test_a_commit_is_in_redis_at_once(
    sessions: Sessions,
    redis: Redis,
    settings: Settings,
    pgbouncer: bool,  # noqa: FBT001 - pytest's parameters
) -> None:
    """By a notification, within milliseconds; where there are none, within half a second."""
    database = settings.database.model_copy(update={"pgbouncer": pgbouncer})
    latencies = []
    async with _open(sessions, Settings(database, settings.queue, settings.worker), is_listening=not pgbouncer):
        for number in range(5 if pgbouncer else 50):
            await asyncio.sleep(0.005)  # idle, as between two requests
            await _promise(sessions, JANE, f"j{number}")
            started = time.perf_counter()
            while await redis.zscore("arq:queue", f"j{number}") is None:
                await asyncio.sleep(0)
            latencies.append(time.perf_counter() - started)

    latencies.sort()
    assert latencies[len(latencies) // 2] < (1.0 if pgbouncer else 0.1)
    assert latencies[-1] < 2.5


@asynccontextmanager
async def _open(sessions: Sessions, settings: Settings, *, is_listening: bool) -> AsyncIterator[Relay]:
    if is_listening:
        async with _running(sessions, settings) as relay:
            yield relay
    else:
        async with open_relay(sessions, settings) as relay:
            yield relay


async def test_one_of_many_listens_and_the_next_takes_over(sessions: Sessions) -> None:
    """Its lost connection is noticed, and the pool is whole in the end."""
    engine = sessions.kw["bind"]
    ears = [Wakeup(engine, "arq:queue") for _ in range(4)]
    counts = []

    async def one_listens() -> bool:
        return sum(ear.is_listening for ear in ears) == 1

    async with AsyncExitStack() as stack:
        for ear in ears:
            await stack.enter_async_context(ear.listening())
        for _ in range(2):
            await _until(one_listens)
            (first,) = [ear for ear in ears if ear.is_listening]
            counts.append(sum(ear.is_listening for ear in ears))
            await _execute(
                sessions,
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
            )

            async def is_deaf(ear: Wakeup = first) -> bool:
                return not ear.is_listening

            await _until(is_deaf)
        await _until(one_listens)

    assert counts == [1, 1]
    assert engine.pool.checkedout() == 0


async def test_a_stopped_listener_delays_a_job_by_two_seconds_at_most(
    start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """It holds the lock and hears nothing: the others look by themselves."""
    listener = start_worker(sys.executable, "-m", "worker", "relay")
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid <> 0"

    async def listens() -> bool:
        async with sessions() as session:
            return bool(await session.scalar(text(query)))

    await _until(listens)
    start_worker(sys.executable, "-m", "worker", "relay")
    os.kill(listener.process.pid, signal.SIGSTOP)

    await _promise(sessions, JANE, "jane")
    started = time.perf_counter()

    async def is_given() -> bool:
        return bool(await redis.zcard("arq:queue"))

    await _until(is_given)
    took = time.perf_counter() - started
    os.kill(listener.process.pid, signal.SIGCONT)
    assert took < 2.5


async def test_the_relay_alone_starts_and_ends_like_a_worker(
    start_worker: StartWorker, sessions: Sessions, redis: Redis
) -> None:
    """Health, exit code 0 at SIGTERM, and what is promised meanwhile is given by the next one."""
    first = start_worker(sys.executable, "-m", "worker", "relay")
    code = first.stop()
    await _promise(sessions, JANE, "jane")
    assert await redis.zcard("arq:queue") == 0
    start_worker(sys.executable, "-m", "worker", "relay")

    async def is_given() -> bool:
        return bool(await redis.zcard("arq:queue"))

    await _until(is_given)
    assert (code, "relay stopped" in first.log) == (0, True)


async def test_nothing_promised_is_lost_by_kills_and_wipes(
    start_worker: StartWorker, sessions: Sessions, redis: Redis, valkey_url: str
) -> None:
    """Relays are killed, Redis is wiped again and again: each job takes effect once and the law holds throughout."""
    workers = [start_worker(WORKER_LEASE="1s")]
    job_ids = [f"j{number}" for number in range(300)]

    async def promise() -> None:
        for number, job_id in enumerate(job_ids):
            kinds = (CreateUser(name=f"n{number}"), GetOrCreateUser(name="x", email=f"u{number}@example.org"))
            await _promise(sessions, kinds[number % 2], job_id)
            await asyncio.sleep(0.005)

    async def interfere() -> None:
        for turn in range(6):
            await asyncio.sleep(0.4)
            await redis.flushall()
            if turn % 2:
                workers.pop(0).process.kill()
                workers.append(await asyncio.to_thread(start_worker, WORKER_LEASE="1s"))

    async def places() -> set[tuple[str, ...]]:
        found = await _where(sessions, *job_ids)
        return {tuple(places) for places in found.values()}

    seen: set[tuple[str, ...]] = set()
    chaos = asyncio.gather(promise(), interfere())
    while not chaos.done():
        seen |= await places()
        await asyncio.sleep(0.02)
    await chaos

    async def all_done() -> bool:
        return await places() == {("receipts",)}

    await _until(all_done, 60)
    async with sessions() as session:
        users = await session.scalar(text("SELECT count(*) FROM users"))
    assert users == len(job_ids)
    assert seen <= {(), ("outbox",), ("receipts",)}
    with SyncRedis.from_url(valkey_url) as found:
        assert found.ping()


async def test_a_promise_is_answered_like_any_job(
    start_worker: StartWorker, client: JobClient, sessions: Sessions, redis: Redis
) -> None:
    """Through a real worker: a result, a look-up that gets a receipt, a refusal, and none is owed any more."""
    start_worker()
    async with sessions.begin() as session:
        jane = await enqueue_in(session, JANE, key="jane")
    answer = await client.handle(jane).result(timeout=timedelta(seconds=20))
    async with sessions.begin() as session:
        found = await enqueue_in(session, FindUser(email="jane@example.org"), key="find")
        taken = await enqueue_in(session, JANE, key="taken")
    matches = await client.handle(found).result(timeout=timedelta(seconds=20))
    with pytest.raises(EmailTakenError):
        await client.handle(taken).result(timeout=timedelta(seconds=20))
    await redis.flushall()
    again = await (await client.enqueue(JANE, key="jane")).result(timeout=timedelta(seconds=20))

    assert (answer, matches.first) == (again, answer)
    assert set(map(tuple, (await _where(sessions, "jane", "find", "taken")).values())) == {("receipts",)}


async def _run(sessions: Sessions, key: str, payload: AnyPayload, attempt: int = 1) -> dict[str, object]:
    fields = payload.model_dump(mode="json", exclude_unset=True)
    return await Dispatcher(sessions).run(REGISTRY[payload.job_name], Delivery(key, attempt, (), fields))


async def test_another_request_with_the_id_is_recorded_as_dead(sessions: Sessions) -> None:
    """X was sent directly and took effect; Y was promised under the same id: X's run leaves Y's row, Y's ends it."""
    other = CreateUser(name="Janet")
    await _promise(sessions, other, "k")
    await _run(sessions, "k", JANE)
    between = await _where(sessions, "k")
    await _run(sessions, "k", JANE)  # delivered twice: that settles nothing of the other request either

    for attempt in (1, 2):
        with pytest.raises(RequestConflictError):
            await _run(sessions, "k", other, attempt)

    conflict = conflict_id("k", request_hash(other))
    async with sessions() as session:
        owed = await count_promises(session, "arq:queue")
        (letter,) = await dead_jobs(session, DeadFilter(), limit=9)
    assert between == {"k": ["outbox", "receipts"]}
    assert (owed, letter.job_id, letter.reason) == (0, conflict, "request_conflict")
    assert json.loads(letter.message)["k"] == {"name": "Janet"}
    assert await _where(sessions, "k", conflict) == {"k": ["receipts"], conflict: ["dead"]}


async def test_the_longest_id_has_a_conflict_id_too() -> None:
    """At most 200 characters; other requests and other ids give others."""
    ids = {conflict_id(key, request) for key in ("k" * 200, "k" * 199) for request in (b"x", b"y")}

    assert len(ids) == 4
    assert max(map(len, ids)) <= 200


@pytest.mark.parametrize("payload", [JANE, FindUser(name="Jane")])
async def test_a_row_of_another_version_of_the_code_goes(sessions: Sessions, payload: AnyPayload) -> None:
    """Its hash is another because defaults were: the job ends, and its next delivery finds out that it is the same."""
    await _promise(sessions, payload, "k")
    await _execute(sessions, "UPDATE job_outbox SET request_hash = 'old'")
    first = await _run(sessions, "k", payload)
    between = await _where(sessions, "k")

    again = await _run(sessions, "k", payload)

    assert again == first
    assert (between, await _where(sessions, "k")) == ({"k": ["outbox", "receipts"]}, {"k": ["receipts"]})


async def test_an_answer_of_another_version_of_the_code_is_given(sessions: Sessions) -> None:
    """The receipt and the row were written by it: today's code knows the request by its message."""
    await _promise(sessions, JANE, "k")
    first = await _run(sessions, "k", JANE)
    await _promise(sessions, JANE, "copy")
    await _execute(sessions, "UPDATE job_outbox SET job_id = 'k', request_hash = 'old'")
    await _execute(sessions, "UPDATE job_receipts SET request_hash = 'old'")

    again = await _run(sessions, "k", JANE)

    assert again == first
    assert await _where(sessions, "k") == {"k": ["receipts"]}


async def test_twins_of_a_promised_look_up_give_one_answer(sessions: Sessions) -> None:
    """Of two at once only one may write the receipt; the other answers from it."""
    await _promise(sessions, FindUser(name="Jane"), "find")

    answers = await asyncio.gather(*(_run(sessions, "find", FindUser(name="Jane")) for _ in range(10)))

    assert answers == [{"users": []}] * 10
    assert await _where(sessions, "find") == {"find": ["receipts"]}


def _letter(job_id: str, message: bytes) -> object:
    failure = RequestConflictError("x", kind="malformed_message")
    return write_letter(failure, failure, job_id=job_id, job_name=None, message=message, attempts=1)


async def test_a_dead_job_is_owed_no_more_unless_it_was_another(sessions: Sessions) -> None:
    """Of four deaths: its own message, a wrong field of its own, somebody else's message, and one that was missing."""
    for key in ("same", "foreign", "missing"):
        await _promise(sessions, JANE, key)
    await _promise(sessions, JANE, "wrong")
    wrong: dict[str, object] = {"t": None, "f": "create_user", "a": [], "k": {"nme": "Jane"}, "et": 1}
    async with sessions.begin() as session:
        await session.execute(
            text("UPDATE job_outbox SET message = :message WHERE job_id = 'wrong'"),
            {"message": json.dumps(wrong).encode()},
        )
        message: bytes = await session.scalar(text("SELECT message FROM job_outbox WHERE job_id = 'same'")) or b""

    await bury(sessions, _letter("same", message))  # type: ignore[arg-type] # a letter
    await bury(sessions, _letter("foreign", b"garbage"))  # type: ignore[arg-type] # a letter
    await bury(sessions, _letter("missing", b""))  # type: ignore[arg-type] # a letter
    with pytest.raises(Exception, match="nme"):
        await Dispatcher(sessions).run(REGISTRY["create_user"], Delivery("wrong", 1, (), {"nme": "Jane"}))

    async with sessions() as session:
        letters = {letter.job_id for letter in await dead_jobs(session, DeadFilter(), limit=9)}
    assert await _where(sessions, "same", "foreign", "missing", "wrong") == {
        "same": ["dead"], "foreign": ["outbox"], "missing": ["outbox"], "wrong": ["dead"]
    }  # fmt: skip
    assert {letter.partition("~")[0] for letter in letters} == {"same", "foreign", "wrong"}
    assert len(letters) == 3


@pytest.mark.parametrize("payload", [CreateUser(name="Jane"), FindUser(name="Jane")])
async def test_a_promised_job_that_died_can_be_retried(sessions: Sessions, payload: AnyPayload) -> None:
    """Once, and then it has a receipt: also a look-up, which must not vanish."""
    await _promise(sessions, payload, "k")
    async with sessions() as session:
        message: bytes = await session.scalar(text("SELECT message FROM job_outbox")) or b""
    await bury(sessions, _letter("k", message))  # type: ignore[arg-type] # a letter
    before = await _where(sessions, "k")

    first = await _run(sessions, "k", payload)
    again = await _run(sessions, "k", payload)

    assert first == again
    assert (before, await _where(sessions, "k")) == ({"k": ["dead"]}, {"k": ["receipts"]})
