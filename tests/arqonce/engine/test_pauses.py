"""Claims while a queue or a kind is paused: nothing starts, nothing counts, nothing is lost, nothing else waits."""

import json
import pickle
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from arqonce.connection.pauses import FOR_EVER, Paused, copy_pauses
from arqonce.engine.ends import postpone
from arqonce.engine.leases import Leases
from arqonce.queues import ServedQueues
from arqonce.wire.keys import pauses_key

QUEUE = "arq:queue"
LEASE = timedelta(milliseconds=400)


async def say(redis: Redis, paused: Paused, queue: str = QUEUE) -> None:
    """Copy what is recorded."""

    async def recorded() -> dict[str, Paused]:
        return {queue: paused}

    assert await copy_pauses(redis, [queue], recorded)


async def enqueue(
    redis: Redis, *ids: str, kind: str = "mail", message: bytes | None = None, queue: str = QUEUE
) -> None:
    """Enqueue jobs that were due long ago, in their order."""
    for at, job_id in enumerate(ids):
        await redis.set(f"arq:job:{job_id}", message or json.dumps({"f": kind, "k": {"f": "other"}}), px=60_000)
        await redis.zadd(queue, {job_id: 1000 + at})


async def claim(leases: Leases, room: int = 10) -> list[tuple[str, int]]:
    """Return ids and attempts of what was claimed."""
    return [(claim.job_id, claim.attempt) for claim in (await leases.claim(room, is_idle=True)).claims]


@pytest.fixture
async def leases(redis: Redis) -> Leases:
    """Return the leases of a worker that must know what is paused."""
    return Leases(redis, QUEUE, LEASE, must_know_pauses=True)


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(redis: Redis, leases: Leases) -> None:
    """Also not the job of a killed worker, whose death is counted later."""
    await say(redis, Paused())
    await enqueue(redis, "left", "new")
    assert await claim(leases, 1) == [("left", 1)]
    await say(redis, Paused(FOR_EVER))
    await redis.delete("arq:in-progress:left")
    await redis.zadd("arq:queue:leases", {"left": 1})
    await redis.zadd(QUEUE, {"left": 1000})

    paused = await leases.claim(10, is_idle=True)
    await say(redis, Paused())

    assert (paused.claims, paused.is_full) == ([], False)
    assert await claim(leases) == [("left", 2), ("new", 1)]
    await leases.aclose()


async def test_a_pause_with_an_end_is_over_by_itself(redis: Redis, leases: Leases) -> None:
    """The worker that watches knows when to claim."""
    seconds, microseconds = await redis.time()
    now = seconds * 1000 + microseconds // 1000
    await say(redis, Paused(now + 5000))
    await enqueue(redis, "one")

    found = await leases.claim(10)
    await say(redis, Paused(now - 1))

    assert found.claims == []
    assert timedelta(seconds=4) < found.next_due <= timedelta(seconds=5, milliseconds=1)
    assert await claim(leases) == [("one", 1)]
    await leases.aclose()


async def test_nothing_is_claimed_while_nothing_is_known(redis: Redis, leases: Leases) -> None:
    """Redis was emptied: a pause may be lost. Workers without a ledger, which have no pauses, go on."""
    await enqueue(redis, "one", "two")
    without = Leases(redis, QUEUE, LEASE)

    unknown = await claim(leases)
    assert await claim(without, 1) == [("one", 1)]
    await redis.set(pauses_key(QUEUE), "0123456789abcdefno json")
    broken = await claim(leases)
    await redis.delete(pauses_key(QUEUE))
    await redis.rpush(pauses_key(QUEUE), "no text")  # type: ignore[misc] # redis-py's annotation
    of_another_type = await claim(leases)
    await say(redis, Paused())

    assert (unknown, broken, of_another_type) == ([], [], [])
    assert await claim(leases) == [("two", 1)]
    await leases.aclose()
    await without.aclose()


PICKLE = pickle.dumps({"t": None, "f": "mail", "a": (), "k": {"f": "other"}, "et": 0})


@pytest.mark.parametrize("message", [None, PICKLE], ids=["JSON", "arq's pickle"])
async def test_a_paused_kind_is_put_aside_and_holds_up_no_other(
    redis: Redis, leases: Leases, message: bytes | None
) -> None:
    """Once, uncounted and with the same message; it returns with its old place, each job alike."""
    paused = [f"mail-{number:04}" for number in range(2500)]
    await enqueue(redis, *paused, message=message)
    await enqueue(redis, "other", kind="other")
    await redis.zadd(QUEUE, {"other": 9000})
    await say(redis, Paused(kinds={"mail": FOR_EVER}))

    calls = 1
    while not (found := await leases.claim(10)).claims:
        assert found.is_full  # the next call comes at once
        calls += 1
    again = await leases.claim(10)
    aside = await redis.zcount(QUEUE, 100_000_000_000_000, "+inf")
    ttl = await redis.pttl("arq:job:mail-0000")
    await say(redis, Paused())

    assert ([claim.job_id for claim in found.claims], calls, aside) == (["other"], 3, 2500)
    assert (again.claims, again.is_full) == ([], False)
    assert ttl > timedelta(days=6) / timedelta(milliseconds=1)
    assert await claim(leases, 3) == [("mail-0000", 1), ("mail-0001", 1), ("mail-0002", 1)]
    assert await redis.zscore(QUEUE, "mail-2499") == 3499
    assert await redis.keys("arqonce:aside:*") == []
    await leases.aclose()


async def test_a_paused_kind_of_one_queue_goes_on_in_another(redis: Redis) -> None:
    """And a job of it that a killed worker has left is put aside with its death counted."""
    leases = Leases(redis, ServedQueues((QUEUE, "low")), LEASE)
    await enqueue(redis, "left", "high")
    assert await claim(leases, 1) == [("left", 1)]
    await redis.delete("arq:in-progress:left")
    await redis.zadd("arq:queue:leases", {"left": 1})
    await redis.zadd(QUEUE, {"left": 1000})
    await enqueue(redis, "low", queue="low")
    await say(redis, Paused(kinds={"mail": FOR_EVER}))

    other = await claim(leases)
    await say(redis, Paused())

    assert other == [("low", 1)]
    assert await claim(leases) == [("left", 2), ("high", 1)]
    await leases.aclose()


async def test_a_job_put_aside_can_be_aborted_and_is_not_moved_when_it_runs(redis: Redis, leases: Leases) -> None:
    """An abort of arq pulls it forward: it is claimed, to end. A job that was claimed meanwhile keeps its score."""
    await enqueue(redis, "one", "two")
    await say(redis, Paused(kinds={"mail": FOR_EVER}))
    assert await claim(leases) == []
    await redis.zadd("arq:abort", {"one": 1})
    await redis.zadd(QUEUE, {"one": 1})

    (one,) = (await leases.claim(10)).claims
    await leases.give_up([postpone(one, timedelta(hours=1))])
    later = await redis.zscore(QUEUE, "one")
    await say(redis, Paused())

    assert one.is_aborted
    assert await redis.zscore(QUEUE, "one") == later
    assert await redis.zscore(QUEUE, "two") == 1001
    await leases.aclose()


async def test_what_somebody_has_changed_meanwhile_is_not_overwritten(redis: Redis, leases: Leases) -> None:
    """A slow copy of what was recorded before a pause does not end it, also if Redis says the same again."""
    await say(redis, Paused())

    async def recorded_before() -> dict[str, Paused]:
        await say(redis, Paused(FOR_EVER))
        await say(redis, Paused())
        await say(redis, Paused(FOR_EVER))
        return {QUEUE: Paused(kinds={"mail": FOR_EVER})}

    done = await copy_pauses(redis, [QUEUE], recorded_before)
    await enqueue(redis, "one")

    assert (done, await claim(leases)) == (False, [])
    await leases.aclose()
