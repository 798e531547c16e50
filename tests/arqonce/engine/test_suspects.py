"""Which jobs are suspected of killing their workers, and how they are claimed. On a real server."""

import asyncio
from datetime import timedelta

from redis.asyncio import Redis

from arqonce.engine.ends import end, give_back, postpone
from arqonce.work import Claim
from tests.arqonce.engine.test_leases import LEASE, OpenLeases, _enqueue, _ids, worker

__all__ = ["worker"]

HOUR = timedelta(hours=1)
CRASHES = "arqonce:crashes:arq:queue"


async def _die(worker: OpenLeases, room: int = 1000, *, is_idle: bool = False) -> list[Claim]:
    """Claim as a worker that dies then; return when the leases have ended."""
    claims = (await worker().claim(room, is_idle=is_idle)).claims
    await asyncio.sleep(LEASE.total_seconds() + 0.05)  # Redis' clock decides
    return claims


def _starts(claims: list[Claim]) -> list[tuple[int, int]]:
    """Return of each job the number of its attempt, and how many do not count."""
    return [(claim.attempt, claim.excused) for claim in claims]


async def test_the_first_death_suspects_nobody(worker: OpenLeases, redis: Redis) -> None:
    """A thousand jobs of a killed worker start again at once; that death does not count towards their limits."""
    await _enqueue(redis, *(f"j{number}" for number in range(1000)))
    await _die(worker)

    claimed = await worker().claim(1000)

    assert (len(claimed.claims), claimed.must_get_idle) == (1000, False)
    assert set(_starts(claimed.claims)) == {(2, 1)}


async def test_who_was_there_at_two_deaths_runs_alone(worker: OpenLeases, redis: Redis) -> None:
    """Only in a worker that has no job, and with nothing beside it; others are claimed as ever."""
    await _enqueue(redis, "a", "b")
    await _die(worker)
    await _die(worker)
    await _enqueue(redis, "young")

    busy = await worker().claim(10)
    alone = [await worker().claim(10, is_idle=True) for _ in range(3)]

    assert (_ids(busy.claims), busy.must_get_idle) == (["young"], True)
    assert [_ids(claimed.claims) for claimed in alone] == [["a"], ["b"], []]
    assert [claimed.must_get_idle for claimed in alone] == [True, True, False]
    assert _starts(alone[0].claims) == [(3, 2)]


async def test_one_busy_worker_at_a_time_gets_idle_for_suspects(worker: OpenLeases, redis: Redis) -> None:
    """The others go on working: it needs but one."""
    await _enqueue(redis, "a")
    await _die(worker)
    await _die(worker)
    first, second = worker(), worker()

    said = [(await one.claim(10)).must_get_idle for one in (first, second, first)]

    assert said == [True, False, True]


async def test_a_death_alone_counts(worker: OpenLeases, redis: Redis) -> None:
    """It is nobody else's."""
    await _enqueue(redis, "a")
    await _die(worker)
    await _die(worker)
    await _die(worker, is_idle=True)
    await _die(worker, is_idle=True)

    claimed = await worker().claim(10, is_idle=True)

    assert _starts(claimed.claims) == [(5, 2)]


async def test_an_attempt_that_ends_clears_the_job(worker: OpenLeases, redis: Redis) -> None:
    """However it ends; excused deaths are forgotten with the suspicion, and nothing is left of either."""
    await _enqueue(redis, "a-later", "b-done")
    await _die(worker)
    await _die(worker)
    one = worker()
    (first,) = (await one.claim(10, is_idle=True)).claims
    assert await one.give_up([postpone(first, timedelta(0))]) == [True]
    (second,) = (await one.claim(10, is_idle=True)).claims
    assert await one.give_up([end(second, b"{}", keep=HOUR)]) == [True]

    claimed = await one.claim(10)

    assert (_ids(claimed.claims), _starts(claimed.claims)) == (["a-later"], [(2, 0)])
    assert not await redis.exists(CRASHES)


async def test_a_deploy_clears_nobody_and_counts_for_nobody(worker: OpenLeases, redis: Redis) -> None:
    """A suspect that is given back has not ended: it stays one, with the same number of starts."""
    await _enqueue(redis, "a")
    await _die(worker)
    await _die(worker)
    one = worker()
    (claim,) = (await one.claim(10, is_idle=True)).claims
    assert await one.give_up([give_back(claim)]) == [True]

    claimed = [await one.claim(10), await one.claim(10, is_idle=True)]

    assert [_ids(claims.claims) for claims in claimed] == [[], ["a"]]
    assert _starts(claimed[1].claims) == [(3, 2)]


async def test_a_key_of_another_type_suspects_nobody(worker: OpenLeases, redis: Redis) -> None:
    """It is put right, and stalls nothing."""
    await _enqueue(redis, "a")
    await redis.set(CRASHES, "no such thing")

    assert _ids((await worker().claim(10)).claims) == ["a"]
