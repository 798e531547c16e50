"""Claims on a real server: who owns a job, when, and what those may do who do not own it any more."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from arqonce.connection.redis import build_redis
from arqonce.engine import ends, leases
from arqonce.work import Claim
from tests.conftest import wait_until_async
from tests.redis_keys import keys_of_jobs

LEASE = timedelta(milliseconds=300)
HOUR = timedelta(hours=1)


class Leases(leases.Leases):
    """The leases of a worker, one job at a time."""

    async def claims(self, room: int) -> list[Claim]:
        """Return only the claims."""
        return (await self.claim(room)).claims

    async def end(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401 - passed on
        """End one job."""
        return (await self.give_up([ends.end(*args, **kwargs)]))[0]

    async def postpone(self, *args: Any, **kwargs: Any) -> bool:  # noqa: ANN401 - passed on
        """Postpone one job."""
        return (await self.give_up([ends.postpone(*args, **kwargs)]))[0]

    async def give_back(self, claim: Claim) -> bool:
        """Give one job back."""
        return (await self.give_up([ends.give_back(claim)]))[0]


OpenLeases = Callable[[], Leases]


@pytest.fixture
async def worker(redis: Redis, valkey_url: str) -> AsyncIterator[OpenLeases]:
    """Yield a function that returns the leases of one more worker."""
    assert redis is not None  # the queue is empty
    async with AsyncExitStack() as stack:

        def open_leases() -> Leases:
            client = build_redis(valkey_url, Redis)
            stack.push_async_callback(client.aclose)
            leases = Leases(client, "arq:queue", LEASE)
            stack.push_async_callback(leases.aclose)
            return leases

        yield open_leases


async def _enqueue(redis: Redis, *job_ids: str, score: float | None = None) -> None:
    due = time.time() * 1000 - 1 if score is None else score
    for number, job_id in enumerate(job_ids):
        await redis.set(f"arq:job:{job_id}", f"message of {job_id}", px=60_000)
        await redis.zadd("arq:queue", {job_id: due + number / 1000})


def _ids(claims: list[Claim]) -> list[str]:
    return [claim.job_id for claim in claims]


async def _claim_when_due(leases: Leases, room: int = 10) -> list[Claim]:
    claims: list[Claim] = []

    async def is_claimed() -> bool:
        claims.extend(await leases.claims(room))
        return bool(claims)

    await wait_until_async(is_claimed, 5)
    return claims


async def test_a_claim_brings_all_that_is_needed_to_run(redis: Redis, worker: OpenLeases) -> None:
    """The oldest first, as many as there is room for, each with its message, attempt and old score."""
    await _enqueue(redis, "a", "b", "c", score=1000)

    claims = await worker().claims(2)

    facts = [(claim.job_id, claim.attempt, claim.message, claim.score, claim.is_aborted) for claim in claims]
    assert facts == [("a", 1, b"message of a", b"1000", False), ("b", 1, b"message of b", b"1000.001", False)]
    assert await redis.get("arq:in-progress:a") == claims[0].owner.encode()
    assert await redis.keys("arq:retry:*") == []  # a first attempt is not written down before it ends without an end


async def test_two_hundred_claims_at_once_share_no_job(redis: Redis, worker: OpenLeases) -> None:
    """Ten workers, each asking twenty times: every job has one owner."""
    await _enqueue(redis, *(f"j{number}" for number in range(500)))
    workers = [worker() for _ in range(10)]

    async def ask(leases: Leases) -> list[str]:
        return [job_id for _ in range(20) for job_id in _ids(await leases.claims(5))]

    claimed = [job_id for found in await asyncio.gather(*map(ask, workers)) for job_id in found]

    assert (len(claimed), len(set(claimed))) == (500, 500)


async def test_running_jobs_hide_no_waiting_ones(redis: Redis, worker: OpenLeases) -> None:
    """Nor do five hundred orphans: a new job is claimed at once, whoever has what before it."""
    await _enqueue(redis, *(f"old{number}" for number in range(500)))
    await worker().claims(500)
    await _enqueue(redis, "new")

    assert _ids(await worker().claims(1)) == ["new"]


async def test_jobs_that_stock_workers_run_are_passed_over(redis: Redis, worker: OpenLeases) -> None:
    """Arq leaves the score of a running job as it is; hundreds of them are no obstacle."""
    await _enqueue(redis, *(f"theirs{number}" for number in range(300)), "ours")
    for number in range(300):
        await redis.set(f"arq:in-progress:theirs{number}", "1", px=60_000)

    assert _ids(await worker().claims(2)) == ["ours"]


async def test_a_lock_without_an_end_gets_one(redis: Redis, worker: OpenLeases) -> None:
    """A job is not lost because somebody has locked it for ever."""
    await _enqueue(redis, "locked")
    await redis.set("arq:in-progress:locked", "1")
    leases = worker()

    assert await leases.claims(1) == []
    assert _ids(await _claim_when_due(leases)) == ["locked"]


async def test_orphans_start_before_whatever_is_waiting(redis: Redis, worker: OpenLeases) -> None:
    """A killed worker's jobs are the oldest: a backlog does not delay them again."""
    await _enqueue(redis, "orphan", score=10)
    await worker().claims(1)
    await _enqueue(redis, *(f"waiting{number}" for number in range(50)), score=20)
    await asyncio.sleep(LEASE.total_seconds() * 1.1)  # time is what is tested: the lease must have ended

    (claim,) = await worker().claims(1)

    assert (claim.job_id, claim.attempt) == ("orphan", 2)


async def test_a_renewed_lease_does_not_end(redis: Redis, worker: OpenLeases) -> None:
    """Renewed within its length, a job stays with its owner for three lengths."""
    await _enqueue(redis, "long")
    owner, other = worker(), worker()
    claims = await owner.claims(1)

    for _ in range(9):
        await asyncio.sleep(LEASE.total_seconds() / 3)
        assert await owner.renew(claims) == set()
        assert await other.claims(1) == []


async def test_a_zombie_touches_nothing_that_is_anothers(redis: Redis, worker: OpenLeases) -> None:
    """Neither its success, nor its failure, nor its shutdown; and renewing tells it."""
    await _enqueue(redis, "job")
    zombie, other = worker(), worker()
    (late,) = await zombie.claims(1)
    (current,) = await _claim_when_due(other)
    before = await _state(redis)

    touched = [
        await zombie.end(late, b"late", keep=HOUR),
        await zombie.postpone(late, HOUR),
        await zombie.give_back(late),
    ]
    lost = await zombie.renew([late])

    assert (touched, lost) == ([False] * 3, {b"job"})
    assert await _state(redis) == before
    assert await other.end(current, b"right", keep=HOUR)
    assert await redis.get("arq:result:job") == b"right"


async def _state(redis: Redis) -> dict[str, object]:
    """Return what Redis has of the job, but for times to live, which pass."""
    return {
        "queue": await redis.zrange("arq:queue", 0, -1, withscores=True),
        "leases": await redis.zrange("arq:queue:leases", 0, -1, withscores=True),
        **{key: await redis.get(f"arq:{key}:job") for key in ("job", "in-progress", "retry", "result")},
    }


async def test_without_a_fence_the_first_outcome_of_two_owners_counts(redis: Redis, worker: OpenLeases) -> None:
    """Whoever has the job by then: there is no receipt by which the second one could know."""
    slow, other = worker(), worker()
    await _enqueue(redis, "a")
    (old,) = await slow.claims(1)
    (new,) = await _claim_when_due(other)

    counted = await slow.end(old, b"of the first", keep=HOUR, is_fenced=False)
    too_late = await other.end(new, b"of the second", keep=HOUR, is_fenced=False)

    assert (counted, too_late) == (True, False)
    assert await redis.get("arq:result:a") == b"of the first"
    assert await redis.zcard("arq:queue") == 0
    assert await keys_of_jobs(redis, "arq:*:a") == [b"arq:result:a"]


async def test_without_a_fence_an_old_outcome_ends_no_job_of_another_message(redis: Redis, worker: OpenLeases) -> None:
    """The id was enqueued anew meanwhile."""
    slow, other = worker(), worker()
    await _enqueue(redis, "a")
    (old,) = await slow.claims(1)
    await _claim_when_due(other)
    await redis.set("arq:job:a", "another message", px=60_000)

    assert not await slow.end(old, b"old", keep=HOUR, is_fenced=False)
    assert await redis.get("arq:result:a") is None
    assert await redis.zcard("arq:queue") == 1


async def test_what_another_has_put_back_is_no_longer_ours(redis: Redis, worker: OpenLeases) -> None:
    """A zombie's heartbeat does not lock a job that waits for its next attempt."""
    await _enqueue(redis, "job")
    zombie, other = worker(), worker()
    (late,) = await zombie.claims(1)
    (current,) = await _claim_when_due(other)
    assert await other.postpone(current, HOUR)
    before = await _state(redis)

    assert await zombie.renew([late]) == {b"job"}
    assert await _state(redis) == before


async def test_an_ended_lease_that_nobody_took_is_still_ours(redis: Redis, worker: OpenLeases) -> None:
    """After an outage of Redis for longer than the lease, the job goes on where it is."""
    await _enqueue(redis, "job")
    leases = worker()
    claims = await leases.claims(1)
    await asyncio.sleep(LEASE.total_seconds() * 1.1)  # time is what is tested

    assert await leases.renew(claims) == set()
    assert await worker().claims(1) == []
    assert await leases.end(claims[0], b"result", keep=HOUR)


async def test_an_ended_job_leaves_its_result_alone(redis: Redis, worker: OpenLeases) -> None:
    """No key of it stays behind."""
    await _enqueue(redis, "job")
    leases = worker()
    (claim,) = await leases.claims(2)

    assert await leases.end(claim, b"result", keep=HOUR)

    assert await keys_of_jobs(redis) == [b"arq:result:job"]
    assert 3_500_000 < await redis.pttl("arq:result:job") <= 3_600_000


async def test_a_result_of_a_job_that_redis_lost_is_kept(redis: Redis, worker: OpenLeases) -> None:
    """The producer may still wait for it, and it is in nobody's way."""
    await _enqueue(redis, "job")
    leases = worker()
    (claim,) = await leases.claims(1)
    await redis.flushall()

    assert not await leases.end(claim, b"result", keep=HOUR)

    assert await keys_of_jobs(redis) == [b"arq:result:job"]


async def test_a_postponed_job_outlives_its_first_expiry(redis: Redis, worker: OpenLeases) -> None:
    """Arq lets a job expire between two attempts if the second comes late."""
    await _enqueue(redis, "job")
    leases = worker()
    (claim,) = await leases.claims(1)

    assert await leases.postpone(claim, HOUR)

    assert await redis.pttl("arq:job:job") > 7 * 86_400_000
    assert (await redis.zscore("arq:queue", "job") or 0) > (time.time() + 3_590) * 1000
    assert (await redis.get("arq:retry:job"), await redis.exists("arq:in-progress:job")) == (b"1", 0)


async def test_the_attempts_of_a_job_that_is_postponed_for_a_day_are_remembered(
    redis: Redis, worker: OpenLeases
) -> None:
    """They are kept for a day after it is due again: else such a job would never use them up."""
    await _enqueue(redis, "j1")
    leases = worker()
    [claim] = await leases.claims(1)

    assert await leases.postpone(claim, 24 * HOUR)

    assert await redis.get("arq:retry:j1") == b"1"
    assert timedelta(milliseconds=await redis.pttl("arq:retry:j1")) > 47 * HOUR


async def test_what_is_given_back_was_never_started(redis: Redis, worker: OpenLeases) -> None:
    """The same score, the same attempts."""
    await _enqueue(redis, "job", score=1234)
    before = await _state(redis)
    leases = worker()

    (claim,) = await leases.claims(1)
    assert await leases.give_back(claim)

    assert await _state(redis) == before


async def test_a_claim_without_an_answer_is_given_back_and_does_not_count(
    redis: Redis, worker: OpenLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has claimed, the connection is lost before its answer: the next call takes it back, as attempt 1."""
    await _enqueue(redis, "job")
    leases = worker()
    run = leases._direct.run

    async def lose_the_answer(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        await run(*args, **kwargs)
        raise RedisConnectionError("Connection lost")

    with monkeypatch.context() as patch:
        patch.setattr(leases._direct, "run", lose_the_answer)
        with pytest.raises(RedisConnectionError):
            await leases.claims(1)
    assert await redis.exists("arq:in-progress:job")

    (again,) = await leases.claims(1)

    assert (again.job_id, again.attempt) == ("job", 1)


async def test_an_end_without_an_answer_is_recorded_once_and_is_ours(
    redis: Redis, worker: OpenLeases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent again, and told to be no other worker's; another worker's end is."""
    await _enqueue(redis, "job")
    leases, other = worker(), worker()
    (claim,) = await leases.claims(1)
    run = leases._direct.run

    async def lose_the_answer(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        await run(*args, **kwargs)
        raise RedisConnectionError("Connection lost")

    monkeypatch.setattr(leases._direct, "run", lose_the_answer)

    ours = await leases.end(claim, b"done", keep=HOUR), await leases.end(claim, b"done", keep=HOUR)
    others = await other.end(claim, b"done later", keep=HOUR)

    assert (ours, others) == ((True, True), False)
    assert await redis.get("arq:result:job") == b"done"


async def test_a_claim_is_not_repeated_unseen() -> None:
    """redis-py would send it again after a lost connection, and nobody would run what the first one claimed."""
    received = 0

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while b"EVALSHA" not in (command := await reader.read(65536)) and command:
            writer.write(b"%1\r\n+proto\r\n:3\r\n" if b"HELLO" in command else b"+OK\r\n")
        received += b"EVALSHA" in command
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, build_redis(f"redis://127.0.0.1:{port}", Redis) as client:
        leases = Leases(client, "arq:queue", LEASE)
        with pytest.raises(RedisConnectionError):
            await leases.claims(1)
        await leases.aclose()

    assert received == 1


async def test_requests_to_abort_end_with_their_jobs(redis: Redis, worker: OpenLeases) -> None:
    """A waiting job is claimed as aborted, also by the next worker if it is given back, or its worker dies.

    An old request for no job is forgotten, or it would hit a later job.
    """
    await _enqueue(redis, "waiting", "kept")
    now = time.time() * 1000
    await redis.zadd("arq:abort", {"waiting": now, "kept": now - 120_000, "gone": now - 120_000, "fresh": now})
    leases = worker()

    (claim,) = await leases.claims(1)
    await leases.give_back(claim)
    (again,) = await leases.claims(1)
    await asyncio.sleep(LEASE.total_seconds())
    (orphan,) = await worker().claims(1)

    assert [claim.is_aborted, again.is_aborted, orphan.is_aborted] == [True] * 3
    assert await leases.aborted([]) == set()
    assert await leases.end(orphan, b"", keep=HOUR)
    assert set(await redis.zrange("arq:abort", 0, -1)) == {b"kept", b"fresh"}


async def test_a_request_to_abort_is_heard_behind_many_others(redis: Redis, worker: OpenLeases) -> None:
    """Those of other workers' jobs, or of jobs that wait for a day."""
    await _enqueue(redis, "job")
    now = time.time() * 1000
    leases = worker()
    (claim,) = await leases.claims(1)

    await redis.zadd("arq:abort", {f"other-{number}": now for number in range(5000)} | {"job": now + 1})

    assert await leases.aborted([claim]) == {b"job"}


async def test_jobs_behind_many_that_stock_workers_run_are_reached(redis: Redis, worker: OpenLeases) -> None:
    """A call looks at so many of them, and the next one goes on behind these."""
    locked = [f"locked-{number}" for number in range(2500)]
    async with redis.pipeline() as pipe:
        for number, job_id in enumerate(locked):
            pipe.set(f"arq:in-progress:{job_id}", "1", px=60_000)
            pipe.zadd("arq:queue", {job_id: number})
        await pipe.execute()
    await _enqueue(redis, "fresh")
    leases = worker()

    calls = [await leases.claim(10) for _ in range(3)]

    assert [_ids(call.claims) for call in calls] == [[], [], ["fresh"]]
    assert [call.is_full for call in calls] == [True, True, False]
    assert _ids((await leases.claim(10)).claims) == []  # and begins at the head again


async def test_common_keys_of_another_type_stall_nobody(redis: Redis, worker: OpenLeases) -> None:
    """Requests to abort that are no sorted set are nobody's; our own key is made anew."""
    await _enqueue(redis, "job")
    await redis.mset({"arq:abort": "x", "arq:queue:leases": "x"})
    leases = worker()

    (claim,) = await leases.claims(1)

    assert await leases.aborted([claim]) == set()
    assert await leases.end(claim, b"result", keep=HOUR)
    assert await redis.get("arq:abort") == b"x"


async def test_a_count_of_attempts_that_can_be_none_is_made_anew(redis: Redis, worker: OpenLeases) -> None:
    """PostgreSQL could not store it: the job would run again and again, and never end."""
    counts = {"a": "-inf", "b": "nan", "c": "1e300", "d": "99999999999", "e": "-5", "f": "3"}
    await _enqueue(redis, *counts)
    await redis.mset({f"arq:retry:{job_id}": count for job_id, count in counts.items()})

    claims = await worker().claims(10)

    assert [claim.attempt for claim in claims] == [1, 1, 1, 1, 1, 4]
    assert await redis.keys("arq:retry:*") == [b"arq:retry:f"]


async def test_a_lock_ends_before_its_score(redis: Redis, worker: OpenLeases) -> None:
    """Who finds an orphan due finds it unlocked: else it would be taken for another worker's, its attempt uncounted."""
    await _enqueue(redis, "job")
    leases = worker()
    claims = await leases.claims(1)
    for _ in ("claimed", "renewed"):
        async with redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.pttl("arq:in-progress:job")
            pipe.zscore("arq:queue", "job")
            pipe.zscore("arq:queue:leases", "job")
            (seconds, micros), left, *scores = await pipe.execute()

        assert all(seconds * 1000 + micros / 1000 + left < score for score in scores)
        await leases.renew(claims)


async def test_no_attempt_is_taken_back_of_a_job_that_has_ended(redis: Redis, worker: OpenLeases) -> None:
    """Its own worker has claimed it once more, late, and its end was recorded meanwhile: no counter is left behind."""
    await _enqueue(redis, "job")
    slow = worker()
    await slow.claims(1)
    (again,) = await _claim_when_due(slow)
    counted = await redis.get("arq:retry:job")

    await slow.uncount(again)
    taken_back = await redis.get("arq:retry:job")
    await slow.end(again, b"done", keep=HOUR)
    await slow.uncount(again)

    assert (counted, taken_back) == (b"1", b"0")
    assert await redis.keys("arq:retry:*") == []
