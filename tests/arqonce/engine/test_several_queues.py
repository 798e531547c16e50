"""One worker on several queues, on a real server: the order of claims, where jobs go back to, what wakes the idle."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from arq.connections import ArqRedis
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from arqonce.connection.presence import live_workers, unserved
from arqonce.connection.redis import build_redis
from arqonce.engine.ends import end, give_back, postpone
from arqonce.engine.idle import _State
from arqonce.engine.leases import Leases
from arqonce.engine.renewals import give_back_now
from arqonce.engine.run import group
from arqonce.queues import EVERY, ServedQueues
from arqonce.work import Again, Claim, Outcome
from tests.arqonce.engine.scripted_work import DONE, ScriptedJob, ScriptedWork
from tests.arqonce.engine.test_idle import Log, StartFleet, _calls, _in, _is_done, log, start
from tests.conftest import wait_until_async

__all__ = ["log", "start"]

LEASE = timedelta(milliseconds=300)
THREE = "high,arq:queue,low"

Serve = Callable[..., Leases]


@pytest.fixture
async def serve(redis: Redis, valkey_url: str) -> AsyncIterator[Serve]:
    """Yield a function that returns the leases of one more worker on these queues."""
    assert redis is not None  # the queues are empty
    async with AsyncExitStack() as stack:

        def open_leases(queues: str = THREE, lease: timedelta = timedelta(minutes=1)) -> Leases:
            client = build_redis(valkey_url, Redis)
            stack.push_async_callback(client.aclose)
            leases = Leases(client, ServedQueues.parse(queues), lease)
            stack.push_async_callback(leases.aclose)
            return leases

        yield open_leases


async def _enqueue(redis: Redis, queue: str, *job_ids: str, message: str = "m", seconds_ago: float = 0) -> None:
    due = (time.time() - seconds_ago) * 1000 - 1
    async with redis.pipeline(transaction=False) as pipe:
        for number, job_id in enumerate(job_ids):
            pipe.set(f"arq:job:{job_id}", message, px=60_000)
            pipe.zadd(queue, {job_id: due + number / 1000})
        await pipe.execute()


async def _claim(leases: Leases, room: int) -> list[Claim]:
    return (await leases.claim(room)).claims


def _said(claims: list[Claim]) -> list[tuple[str, str]]:
    return [(claim.queue, claim.job_id) for claim in claims]


async def test_jobs_come_in_the_order_of_the_queues(redis: Redis, serve: Serve) -> None:
    """However much older a job of a lower queue is; what leaves room brings the next queue's. Each names its queue."""
    await _enqueue(redis, "low", "l1", "l2", seconds_ago=60)
    await _enqueue(redis, "arq:queue", "m1", seconds_ago=30)
    await _enqueue(redis, "high", "h1", "h2")
    one = serve()

    claims = [_said(await _claim(one, room)) for room in (1, 3, 5)]

    assert claims == [[("high", "h1")], [("high", "h2"), ("arq:queue", "m1"), ("low", "l1")], [("low", "l2")]]


async def test_an_urgent_job_is_in_the_next_claim_however_many_others_wait(redis: Redis, serve: Serve) -> None:
    """Behind ten thousand of a lower queue."""
    await _enqueue(redis, "low", *(f"l{number}" for number in range(10_000)), seconds_ago=60)
    one = serve()
    await _claim(one, 10)
    await _enqueue(redis, "high", "urgent")

    assert ("high", "urgent") in _said(await _claim(one, 10))


async def test_urgent_jobs_run_in_a_transaction_of_their_own(redis: Redis, serve: Serve) -> None:
    """And first: with hundreds of others in theirs they would be committed as late as these."""

    async def together(jobs: Sequence[ScriptedJob]) -> list[Outcome | Again]:
        return [DONE] * len(jobs)

    await _enqueue(redis, "arq:queue", *(f"m{number}" for number in range(20)), seconds_ago=60)
    await _enqueue(redis, "high", "h1", "h2")
    work = ScriptedWork({"m": together})

    runs = group(work, [work.open(claim) for claim in await _claim(serve(), 50)])

    assert [(run.jobs[0].claim.queue, run.size) for run in runs] == [("high", 2), ("arq:queue", 20)]


async def test_a_lower_queue_gets_every_sixteenth_place(redis: Redis, serve: Serve) -> None:
    """While the first one never runs out of jobs: the lower ones in turn, by single jobs and by many at once."""
    await _enqueue(redis, "high", *(f"h{number}" for number in range(1000)), seconds_ago=60)
    await _enqueue(redis, "arq:queue", *(f"m{number}" for number in range(1000)), seconds_ago=60)
    await _enqueue(redis, "low", *(f"l{number}" for number in range(1000)))
    one, two = serve(), serve()

    singly = [_said(await _claim(one, 1))[0][0] for _ in range(2 * EVERY)]
    at_once = Counter(queue for queue, _ in _said(await _claim(two, 20 * EVERY)))

    assert [(at, queue) for at, queue in enumerate(singly, 1) if queue != "high"] == [(16, "low"), (32, "arq:queue")]
    assert at_once == {"high": 15 * 20, "low": 10, "arq:queue": 10}


async def test_weights_share_the_claims_and_leave_no_place_empty(redis: Redis, serve: Serve) -> None:
    """5:3:1 while all have jobs; all of the room for those that have, else."""
    for queue in ("high", "arq:queue", "low"):
        await _enqueue(redis, queue, *(f"{queue}{number}" for number in range(50)), seconds_ago=60)
    one = serve("high=5,arq:queue=3,low=1")

    shares = [Counter(queue for queue, _ in _said(await _claim(one, room))) for room in (9, 18, 1000)]

    assert shares[:2] == [{"high": 5, "arq:queue": 3, "low": 1}, {"high": 10, "arq:queue": 6, "low": 2}]
    assert shares[2] == {"high": 35, "arq:queue": 41, "low": 47}


async def test_large_messages_of_one_queue_do_not_starve_another(redis: Redis, serve: Serve) -> None:
    """A claim stops at 4 MiB: each queue with a place has had one by then."""
    await _enqueue(redis, "high", *(f"h{number}" for number in range(30)), message="x" * 900_000, seconds_ago=60)
    await _enqueue(redis, "low", *(f"l{number}" for number in range(30)), message="x" * 900_000)
    one = serve("high=2,low=1")

    claims = [Counter(queue for queue, _ in _said(await _claim(one, 30))) for _ in range(3)]

    assert all(found["low"] and found["high"] for found in claims)


async def test_each_job_goes_back_to_its_queue(redis: Redis, serve: Serve, valkey_url: str) -> None:
    """Postponed, given back by the worker or at its last measures; one that has ended is in none."""
    for queue in ("high", "arq:queue", "low"):
        await _enqueue(redis, queue, f"{queue}-later", f"{queue}-back", f"{queue}-done", f"{queue}-held")
    one = serve()
    claims = {claim.job_id.rpartition("-")[::2]: claim for claim in await _claim(one, 100)}
    given = [
        build(claims[queue, what])
        for queue in ("high", "arq:queue", "low")
        for what, build in (
            ("later", lambda claim: postpone(claim, timedelta(0))),
            ("done", lambda claim: end(claim, b"{}", keep=timedelta(hours=1))),
            ("back", give_back),
        )
    ]
    held = [claims[queue, "held"] for queue in ("low", "high", "arq:queue")]

    answers = await one.give_up(given)
    count = await asyncio.to_thread(_give_back_now, valkey_url, held)

    assert (answers, count) == ([True] * 9, 3)
    assert await one.renew(list(claims.values())) == {claim.id for claim in claims.values()}  # none is ours any more
    for queue in ("high", "arq:queue", "low"):
        left = {f"{queue}-later".encode(), f"{queue}-back".encode(), f"{queue}-held".encode()}
        assert set(await redis.zrange(queue, 0, -1)) == left
        assert await redis.zcard(f"{queue}:leases") == 0
    assert sorted(_said(await _claim(serve(), 100))) == sorted(
        (queue, f"{queue}-{what}") for queue in ("high", "arq:queue", "low") for what in ("later", "back", "held")
    )


def _give_back_now(url: str, claims: list[Claim]) -> int:
    with SyncRedis.from_url(url) as redis:
        return give_back_now(redis, claims)


async def test_a_killed_workers_jobs_of_each_queue_come_first(redis: Redis, serve: Serve) -> None:
    """Those of the lowest, too, before what waits in the first; renewed leases are left alone."""
    for queue in ("high", "arq:queue", "low"):
        await _enqueue(redis, queue, f"{queue}1", f"{queue}2")
    killed, other = serve(lease=LEASE), serve()
    left = await _claim(killed, 6)
    await killed.renew(left)
    assert await _claim(other, 10) == []
    await _enqueue(redis, "high", *(f"new{number}" for number in range(10)), seconds_ago=60)
    await asyncio.sleep(LEASE.total_seconds() + 0.05)  # Redis' clock decides

    found = await _claim(other, 8)

    assert _said(found[:6]) == _said(left)
    assert [(claim.attempt, claim.was_left) for claim in found[:6]] == [(2, True)] * 6
    assert {claim.queue for claim in found[6:]} == {"high"}


async def test_a_lost_answer_is_given_back_in_each_queue(redis: Redis, serve: Serve) -> None:
    """Nobody has started those jobs."""
    for queue in ("high", "arq:queue", "low"):
        await _enqueue(redis, queue, queue)
    one = serve()
    lost = await _claim(one, 10)
    one._unanswered.append(lost[0].owner)

    found = await _claim(one, 10)

    assert sorted(_said(found)) == sorted(_said(lost))
    assert [claim.attempt for claim in found] == [1, 1, 1]


async def test_jobs_locked_by_plain_workers_are_skipped_in_each_queue(redis: Redis, serve: Serve) -> None:
    """More of them than one claim looks at, in two queues."""
    for queue in ("high", "low"):
        locked = [f"{queue}{number}" for number in range(1100)]
        await _enqueue(redis, queue, *locked, seconds_ago=60)
        await redis.mset({f"arq:in-progress:{job_id}": "1" for job_id in locked})
        await _enqueue(redis, queue, f"{queue}-free")
    one = serve()

    claims = [claim for _ in range(2) for claim in await _claim(one, 10)]

    assert sorted(_said(claims)) == [("high", "high-free"), ("low", "low-free")]


async def test_a_suspect_runs_alone_among_all_queues(redis: Redis, serve: Serve) -> None:
    """As in one: it was there at two deaths of workers. Nothing of another queue is claimed with it."""
    await _enqueue(redis, "low", "suspect")
    for _ in range(2):
        await _claim(serve(lease=LEASE), 10)
        await asyncio.sleep(LEASE.total_seconds() + 0.05)  # Redis' clock decides
    await _enqueue(redis, "high", "young")
    one = serve()

    busy = await one.claim(10)
    alone = await one.claim(10, is_idle=True)

    assert (_said(busy.claims), busy.must_get_idle) == ([("high", "young")], True)
    assert (_said(alone.claims), alone.must_get_idle) == ([("low", "suspect")], True)


def _serving(queues: str) -> dict[str, object]:
    served = ServedQueues.parse(queues)
    return {"queues": served, "queue_name": served.default("arq:queue")}


async def _run(pool: ArqRedis, log: Log, queue: str, job_id: str) -> float:
    before = time.time()
    await pool.enqueue_job("work", _job_id=job_id, _queue_name=queue)
    await wait_until_async(lambda: _is_done(pool, job_id), 10)
    return log.started[job_id] - before


async def test_a_job_of_any_queue_wakes_one_idle_worker(
    start: StartFleet,
    pool: ArqRedis,
    redis: Redis,
    log: Log,
) -> None:
    """At two commands, as with one queue, of five idle workers: one watches all three queues."""
    workers = await start(5, **_serving(THREE))
    await _run(pool, log, "high", "first")
    costs, took = [], []
    for number, queue in enumerate(["high", "arq:queue", "low"] * 3):
        before = await _calls(redis)
        took.append(await _run(pool, log, queue, f"j{number}"))
        await asyncio.sleep(0.02)  # for the commands that there should not be
        costs.append(await _calls(redis) - before)

    assert sorted(costs)[len(costs) // 2] == 2
    assert max(took) < 1
    assert len(_in(_State.WATCHING, workers)) == 1
    assert await redis.exists("high:watcher", "arq:queue:watcher", "low:watcher") == 0


async def test_workers_with_other_queues_are_woken_too(
    start: StartFleet,
    pool: ArqRedis,
    log: Log,
) -> None:
    """While those that serve more are busy, a queue that both serve is watched by the other."""
    log.hold.clear()
    await start(1, max_jobs=1, **_serving("high,arq:queue"))
    await pool.enqueue_job("work", _job_id="holds", _queue_name="high")
    await wait_until_async(lambda: _has_started(log, "holds"), 10)
    await start(1, **_serving("low,arq:queue"))
    before = time.time()

    await pool.enqueue_job("work", _job_id="shared")
    await wait_until_async(lambda: _has_started(log, "shared"), 10)

    assert log.started["shared"] - before < 1


async def _has_started(log: Log, job_id: str) -> bool:
    return job_id in log.started


async def test_who_serves_what_is_known(start: StartFleet, redis: Redis) -> None:
    """From the start to the end of a worker; a plain arq worker is known by its health key."""
    (worker,) = await start(1, **_serving(THREE))

    async def is_known() -> bool:
        return bool(await live_workers(redis))

    await wait_until_async(is_known, 5)
    await redis.set("letters:health-check", "a plain worker's", px=5000)
    served = [found.queues for found in await live_workers(redis)]
    missing = await unserved(redis, ["misspelt", "low", "letters"])
    worker.handle_sig_wait_for_completion(signal.SIGTERM)
    await asyncio.gather(worker.main_task, return_exceptions=True)  # type: ignore[arg-type] # it has started
    await worker.close()

    assert (served, missing) == ([["high", "arq:queue", "low"]], ["misspelt"])
    assert await live_workers(redis) == []
