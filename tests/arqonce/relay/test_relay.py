"""The relay: what is promised is given, whatever becomes of Redis, of the relay, or of either's memory."""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from arqonce import DatabaseSettings, open_database
from arqonce.connection.presence import ALARM_KEY
from arqonce.embedded import open_valkey
from arqonce.ledger.dead_jobs import DeadFilter, dead_jobs
from arqonce.ledger.losses import latest_losses
from arqonce.ledger.outbox import Promise, dispatch_batch, lock_promise, take_back
from arqonce.outbox import enqueue_many_in
from arqonce.process.health import ServerError
from arqonce.process.probes import ask_redis
from arqonce.relay import relay as relay_module
from arqonce.relay.epoch import RedisEpochs
from arqonce.relay.relay import Relay, open_relay
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from jobs import CreateUser
from tests.promised import JANE, KEEP, Sessions, count_promises, execute, promise, until, where


def _relay(sessions: Sessions, redis: Redis, keep: timedelta = KEEP) -> Relay:
    return Relay(sessions, redis, queues=["arq:queue"], keep=keep, wakeup=None)


async def test_a_promise_is_given_as_a_client_would_have_sent_it(sessions: Sessions, redis: Redis) -> None:
    """Message, score and expiry; once: the next looks find nothing."""
    await promise(sessions, JANE, "jane")
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
    await promise(sessions, JANE, "soon", delay=timedelta(seconds=8))
    await promise(sessions, JANE, "later", delay=timedelta(seconds=60))

    await _relay(sessions, redis).turn()

    queued = await redis.zrange("arq:queue", 0, -1, withscores=True)
    assert [job_id for job_id, _ in queued] == [b"soon"]
    assert 5_000 < queued[0][1] - time.time() * 1000 < 8_100


async def _promise_seven(sessions: Sessions, *, size: int) -> None:
    """Promise seven jobs whose messages have so many bytes."""
    for number in range(7):
        await promise(sessions, CreateUser(name="J", email=None), f"j{number}")
    sized = f"UPDATE arqonce.outbox SET message = convert_to(repeat('x', {size}), 'UTF8')"  # noqa: S608 - a number
    await execute(sessions, sized)


async def test_large_messages_are_given_a_few_at_a_time(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """500 of the largest would not fit into memory, nor into the time of one dispatch: they were never given."""
    monkeypatch.setattr(relay_module, "_MOST_BYTES", 40_000)
    await _promise_seven(sessions, size=15_000)
    relay = _relay(sessions, redis)

    first = await relay.turn()
    await relay._take_turns()

    assert (first, await redis.zcard("arq:queue"), await relay.turn()) == (3, 7, 0)


async def test_what_a_slow_network_has_no_time_for_is_given_in_smaller_portions(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each dispatch of 8 MiB took longer than one may: none was ever given."""
    slow_after = 3 * 150_000

    async def slow(session: AsyncSession, **options: Any) -> Sequence[Promise]:  # noqa: ANN401 - as it is called
        promises = await dispatch_batch(session, **options)
        await asyncio.sleep(60 if sum(len(one.message) for one in promises) > slow_after else 0)
        return promises

    monkeypatch.setattr(relay_module, "dispatch_batch", slow)
    monkeypatch.setattr(relay_module, "_TAKE_LIMIT", timedelta(milliseconds=300))
    await _promise_seven(sessions, size=150_000)
    relay = _relay(sessions, redis)

    first = await relay.turn()
    await relay._take_turns()

    assert (first, await redis.zcard("arq:queue")) == (0, 7)


async def test_waiting_and_running_jobs_are_left_alone(sessions: Sessions, redis: Redis) -> None:
    """Given again, a job whose score was moved by its lease stays where it is, with the message that it has."""
    await promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)
    await relay.turn()
    await redis.zadd("arq:queue", {"jane": 9e12})
    await redis.set("arq:job:jane", "mine")
    await execute(sessions, "UPDATE arqonce.outbox SET give_at = now()")

    given = await relay.turn()

    assert given == 1
    assert (await redis.zscore("arq:queue", "jane"), await redis.get("arq:job:jane")) == (9e12, b"mine")


@pytest.mark.parametrize("lost", ["arq:job:jane", "arq:queue"])
async def test_a_single_lost_key_is_found_by_age(sessions: Sessions, redis: Redis, lost: str) -> None:
    """A job that has not ended is given again after 30 s, then 1 min, ... 10 min."""
    await promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)
    waits = []
    for _ in range(8):
        await relay.turn()
        async with sessions.begin() as session:
            waits.append(await session.scalar(text("SELECT give_at - dispatched_at FROM arqonce.outbox")))
            await session.execute(text("UPDATE arqonce.outbox SET give_at = now()"))
    await redis.delete(lost)

    await relay.turn()

    assert waits == [timedelta(seconds=seconds) for seconds in (30, 60, 120, 240, 480, 600, 600, 600)]
    assert await redis.exists("arq:job:jane") == 1
    assert await redis.zcard("arq:queue") == 1


async def test_a_wiped_redis_is_given_everything_again_once(sessions: Sessions, redis: Redis) -> None:
    """Also if several relays notice it at once; a lost connection alone gives nothing again."""
    for number in range(20):
        await promise(sessions, CreateUser(name=f"n{number}"), f"j{number}")
    await _relay(sessions, redis).turn()
    await redis.connection_pool.disconnect()
    after_cut = await _relay(sessions, redis).turn()
    await redis.flushall()

    given = await asyncio.gather(*(_relay(sessions, redis).turn() for _ in range(6)))

    async with sessions() as session:
        dispatches = set(await session.scalars(text("SELECT dispatches FROM arqonce.outbox")))
    assert (after_cut, sum(given), await redis.zcard("arq:queue")) == (0, 20, 20)
    assert dispatches == {1}  # a new epoch is no reason for longer waits


async def test_a_loss_of_redis_is_on_record(sessions: Sessions, redis: Redis) -> None:
    """When it was noticed and how many jobs were given again, one row for all relays; a first start is no loss."""
    for number in range(3):
        await promise(sessions, CreateUser(name=f"n{number}"), f"j{number}")
    relays = [_relay(sessions, redis) for _ in range(3)]
    for relay in relays:
        await relay._take_turns()
    async with sessions() as session:
        before = await latest_losses(session, since=timedelta(days=1), limit=5)
    await redis.flushall()

    with capture_logs() as logs:
        for relay in (*relays, _relay(sessions, redis)):
            relay._known = None  # the epoch is due to be read
            await relay._take_turns()

    async with sessions() as session:
        (loss,) = await latest_losses(session, since=timedelta(days=1), limit=5)
    (line,) = [line for line in logs if line["event"] == "promised jobs were given again: Redis had lost them"]
    assert (before, loss.given_again) == ([], 3)
    assert (line["count"], line["noticed_at"]) == (3, loss.noticed_at.isoformat(timespec="seconds"))


async def test_relays_that_notice_at_once_agree_on_one_epoch(sessions: Sessions, redis: Redis) -> None:
    """Otherwise the jobs would be given once for each of them."""
    await redis.ping()

    epochs = await asyncio.gather(*(RedisEpochs(redis, sessions, ["arq:queue"]).read() for _ in range(10)))

    assert all(found == epochs[0] for found in epochs)
    assert await RedisEpochs(redis, sessions, ["arq:queue"]).read() == epochs[0]


@pytest.mark.usefixtures("starts_processes")
async def test_another_process_of_redis_begins_an_epoch(sessions: Sessions, tmp_path: Path) -> None:
    """Restarted, or a replica after a failover: it may have forgotten the last second."""
    epochs: list[int] = []
    for _ in range(2):
        with open_valkey(tmp_path) as server:
            redis = Redis.from_url(server.url)
            await redis.set("survives", 1, nx=True)
            reads = [await RedisEpochs(redis, sessions, ["arq:queue"]).read() for _ in range(2)]
            epochs += [read["arq:queue"] for read in reads]
            await redis.bgrewriteaof()
            await redis.aclose()

    assert epochs[0] == epochs[1] < epochs[2] == epochs[3]


async def test_four_relays_give_each_of_five_thousand_jobs_once(sessions: Sessions, redis: Redis) -> None:
    """None is taken by two, none is left."""
    async with sessions.begin() as session:
        await enqueue_many_in(session, [CreateUser(name=f"n{number}") for number in range(5000)])
    relays = [_relay(sessions, redis) for _ in range(4)]

    async def drain(relay: Relay) -> int:
        total = 0
        while given := await relay.turn():
            total += given
        return total

    given = await asyncio.gather(*(drain(relay) for relay in relays))

    async with sessions() as session:
        dispatches = set(await session.scalars(text("SELECT dispatches FROM arqonce.outbox")))
    assert (sum(given), await redis.zcard("arq:queue"), dispatches) == (5000, 5000, {1})


async def test_jobs_of_another_queue_are_left_to_its_relays(sessions: Sessions, redis: Redis) -> None:
    """They may be on another Redis."""
    await promise(sessions, JANE, "theirs", queue="other")

    given = await _relay(sessions, redis).turn()

    async with sessions() as session:
        owed = [await count_promises(session, queue) for queue in ("arq:queue", "other")]
    assert (given, owed) == (0, [0, 1])


async def test_a_key_of_a_wrong_type_stops_no_other_job(sessions: Sessions, redis: Redis) -> None:
    """It is told, and tried again by age."""
    await promise(sessions, JANE, "first")
    await redis.set("arq:queue", "x")
    relay = _relay(sessions, redis)
    await relay.turn()
    await redis.delete("arq:queue")
    await execute(sessions, "UPDATE arqonce.outbox SET give_at = now()")

    await relay.turn()

    assert await redis.zrange("arq:queue", 0, -1) == [b"first"]


@pytest.mark.usefixtures("starts_processes")
async def test_a_message_that_redis_does_not_take_stops_no_other(
    sessions: Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Larger than proto-max-bulk-len, it breaks off the whole pipeline; the others are given one by one."""
    monkeypatch.setattr("arqonce.relay.relay.JOB_KEY", "arq:job:")
    for number in range(5):
        await promise(sessions, CreateUser(name=f"n{number}"), f"j{number}")
    await execute(sessions, "ALTER TABLE arqonce.outbox DROP CONSTRAINT outbox_message_size_check")
    await execute(
        sessions, "UPDATE arqonce.outbox SET message = decode(repeat('78', 2000000), 'hex') WHERE job_id = 'j2'"
    )
    with open_valkey(tmp_path) as server:
        redis = Redis.from_url(server.url)
        await redis.config_set("proto-max-bulk-len", 1024 * 1024)

        await _relay(sessions, redis).turn()

        queued = sorted(await redis.zrange("arq:queue", 0, -1))
        await redis.aclose()
    await execute(sessions, "TRUNCATE arqonce.outbox")
    await execute(
        sessions,
        "ALTER TABLE arqonce.outbox ADD CONSTRAINT outbox_message_size_check CHECK (octet_length(message) <= 1048576)",
    )
    assert queued == [b"j0", b"j1", b"j3", b"j4"]


async def test_jobs_that_could_not_be_given_are_due_again_at_once(
    sessions: Sessions, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis went between the look and the giving; the waits do not grow by it."""
    await promise(sessions, JANE, "jane")
    relay = _relay(sessions, redis)

    async def fail(_promises: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patch:
        patch.setattr(relay, "_give", fail)
        failed = [await relay.turn() for _ in range(2)]
    given = await relay.turn()

    async with sessions() as session:
        assert await session.scalar(text("SELECT dispatches FROM arqonce.outbox")) == 1
    assert (failed, given) == ([0, 0], 1)


async def test_a_job_that_is_just_ending_holds_up_none_that_could_not_be_given(sessions: Sessions) -> None:
    """Waiting for its row, with those of others locked, could be a deadlock with a batch of jobs that ends."""
    for name in ("j1", "j2"):
        await promise(sessions, JANE, name)
    async with sessions.begin() as session:
        given = await dispatch_batch(session, epochs={"arq:queue": 1}, keep=timedelta(days=1), most_bytes=10_000)
    async with sessions() as ending:
        await lock_promise(ending, "j1")

        async with asyncio.timeout(2), sessions.begin() as session:
            await take_back(session, [job.job_id for job in given])

        async with sessions() as session:
            due = await session.scalars(text("SELECT job_id FROM arqonce.outbox WHERE give_at <= now()"))
            assert (len(given), list(due)) == (2, ["j2"])


async def test_jobs_that_a_full_redis_refused_are_due_again_at_once(
    sessions: Sessions, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Not half a minute after it takes them again; and it is told once, not for each of them."""
    for number in range(20):
        await promise(sessions, CreateUser(name=f"User {number}"), f"job{number}")
    relay = _relay(sessions, redis)
    await redis.config_set("maxmemory", 1)
    try:
        assert [await relay.turn() for _ in range(2)] == [0, 0]
    finally:
        await redis.config_set("maxmemory", 0)

    assert (await relay.turn(), await redis.zcard("arq:queue")) == (20, 20)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) <= 1


async def test_a_job_that_is_older_than_receipts_is_dead_not_run(sessions: Sessions, redis: Redis) -> None:
    """It could have taken effect so long ago that nobody remembers; one that is due late is not old."""
    await promise(sessions, JANE, "old")
    await promise(sessions, JANE, "deferred")
    await promise(sessions, JANE, "younger")
    await execute(sessions, "UPDATE arqonce.outbox SET created_at = created_at - interval '40 days'")
    await execute(sessions, "UPDATE arqonce.outbox SET due_at = due_at - interval '40 days' WHERE job_id = 'old'")
    await execute(sessions, "UPDATE arqonce.outbox SET due_at = due_at - interval '28 days' WHERE job_id = 'younger'")

    await _relay(sessions, redis).turn()

    async with sessions() as session:
        (letter,) = await dead_jobs(session, DeadFilter(), limit=9)
    assert (letter.job_id, letter.reason) == ("old", "promise_expired")
    assert await where(sessions, "old", "deferred", "younger") == {
        "old": ["dead"], "deferred": ["outbox"], "younger": ["outbox"]
    }  # fmt: skip
    assert sorted(await redis.zrange("arq:queue", 0, -1)) == [b"deferred", b"younger"]
    assert await redis.pttl("arq:job:younger") < timedelta(days=1, minutes=1) / timedelta(milliseconds=1)


async def test_a_relay_that_loses_postgresql_alarms_others_and_does_not_rest(redis: Redis) -> None:
    """Until it is back: who rests would notice neither the loss nor the return for minutes."""
    usual = timedelta(seconds=2)
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    async with open_database(nowhere, pool_size=1) as sessions:
        relay = _relay(sessions, redis)
        pauses = [relay._at_rest(usual)]
        with capture_logs():
            await relay.turn()
        pauses.append(relay._at_rest(usual))

    assert await redis.exists(ALARM_KEY)
    assert pauses[0] > timedelta(minutes=1)
    assert pauses[1] == usual


async def test_rights_that_were_taken_away_are_named(sessions: Sessions, redis: Redis, valkey_url: str) -> None:
    """By the relay and by health, which said that Redis did not answer: an operator would look at the network."""
    await redis.acl_setuser("denied", enabled=True, nopass=True, keys=["none"], commands=["+@all"])
    async with Redis.from_url(valkey_url, username="denied", password="") as denied:
        relay = _relay(sessions, denied)
        with capture_logs() as lines:
            await relay.turn()
        with pytest.raises(ServerError, match="refuses the command: No permissions to access a key"):
            await ask_redis(denied)

    await redis.acl_deluser("denied")
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("the relay waits for Redis", "No permissions to access a key")
    ]
    assert relay.away["redis"].is_away


@pytest.mark.usefixtures("starts_processes")
async def test_an_outage_of_redis_is_waited_out(
    sessions: Sessions, tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told once, and what was promised meanwhile is given within 2 s of Redis' return."""
    with open_valkey(tmp_path) as server:
        url = server.url
    port = url.rpartition(":")[2].partition("/")[0]
    here = Settings(settings.database, QueueSettings(url=SecretStr(url)), WorkerSettings())
    async with open_relay(sessions, here):
        await promise(sessions, JANE, "jane")
        await asyncio.sleep(1.5)  # several turns without Redis
        with open_valkey(tmp_path, settings={"port": port}):
            returned = time.perf_counter()
            redis = Redis.from_url(url)

            async def is_given() -> bool:
                return bool(await redis.zcard("arq:queue"))

            await until(is_given)
            took = time.perf_counter() - returned
            await redis.aclose()

    assert took < 2
    assert capsys.readouterr().out.count("the relay waits") == 1
