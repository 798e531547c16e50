"""Permits on a real server: never more than a limit says, in order, and none is lost."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from arqonce.connection.queue_status import read_queue_status
from arqonce.connection.redis import build_redis
from arqonce.engine.ends import GiveUp, end, give_back, postpone
from arqonce.engine.idle import Bell
from arqonce.engine.leases import Leases
from arqonce.engine.permits import Admission, Applicant
from arqonce.engine.run import Run
from arqonce.engine.runs import Runs
from arqonce.engine.slots import Slots
from arqonce.queues import ServedQueues
from arqonce.wire.keys import PARKED_MS
from arqonce.work import Claim, Observer, Permit
from tests.arqonce.engine.scripted_work import ScriptedWork, hang, succeed
from tests.conftest import wait_until_async

LEASE = timedelta(milliseconds=300)
HOUR = timedelta(hours=1)

Serve = Callable[..., "Limited"]


class Limited(Leases):
    """The leases of a worker whose jobs are named ``<tenant>-<number>``: each tenant has a limit of its own."""

    limits: tuple[tuple[str, int, int], ...] = (("atonce", 2, 0),)
    """Name, number and time in ms of each limit."""

    def permits_of(self, claim: Claim) -> list[Permit]:
        """Return what the job needs."""
        tenant = claim.job_id.partition("-")[0]
        return [Permit(f"{name}:{tenant}", most, per_ms) for name, most, per_ms in self.limits]

    async def start(self, room: int = 100, *, slots: int = 100, is_idle: bool = False) -> list[Claim]:
        """Claim, and return the jobs that may start."""
        claims = (await self.claim(room, is_idle=is_idle)).claims
        return await self.admit(claims, slots=slots)

    async def admit(self, claims: list[Claim], *, slots: int = 100) -> list[Claim]:
        """Return those that may start; give back what had no slot."""
        asked = [Applicant(claim, self.permits_of(claim), at < slots) for at, claim in enumerate(claims)]
        answers = await self.take_permits(asked)
        await self.give_up(
            [give_back(one) for one, got in zip(claims, answers, strict=True) if got is Admission.RETURNS]
        )
        return [claim for claim, answer in zip(claims, answers, strict=True) if answer is Admission.STARTS]

    async def done(self, *claims: Claim) -> list[bool]:
        """End jobs."""
        return await self.give_up([self.with_permits(end(claim, b"{}", keep=HOUR)) for claim in claims])

    def with_permits(self, given: GiveUp) -> GiveUp:
        """Let the job give back what it has."""
        keys = [permit.key for permit in self.permits_of(given.claim) if not permit.per_ms]
        return given._replace(permits=keys)


@pytest.fixture
async def serve(redis: Redis, valkey_url: str) -> AsyncIterator[Serve]:
    """Yield a function that returns the leases of one more worker."""
    assert redis is not None  # the queues are empty
    async with AsyncExitStack() as stack:

        def open_leases(
            *limits: tuple[str, int, int], lease: timedelta = timedelta(minutes=1), queues: str = "arq:queue"
        ) -> Limited:
            client = build_redis(valkey_url, Redis)
            stack.push_async_callback(client.aclose)
            leases = Limited(client, ServedQueues.parse(queues), lease)
            leases.limits = limits or Limited.limits
            stack.push_async_callback(leases.aclose)
            return leases

        yield open_leases


async def _enqueue(redis: Redis, *job_ids: str, queue: str = "arq:queue", seconds_ago: float = 1) -> None:
    due = (time.time() - seconds_ago) * 1000
    async with redis.pipeline(transaction=False) as pipe:
        for number, job_id in enumerate(job_ids):
            pipe.set(f"arq:job:{job_id}", "m", px=60_000)
            pipe.zadd(queue, {job_id: due + number / 1000})
        await pipe.execute()


def _ids(claims: list[Claim]) -> list[str]:
    return [claim.job_id for claim in claims]


async def _parked(redis: Redis, queue: str = "arq:queue") -> list[str]:
    return [job_id.decode() for job_id in await redis.zrangebyscore(queue, PARKED_MS, "+inf")]


async def test_no_more_than_the_limit_start_and_the_rest_wait_in_order(redis: Redis, serve: Serve) -> None:
    """Uncounted, nobody's, out of the range that any worker reads; another tenant goes on."""
    await _enqueue(redis, *(f"a-{number}" for number in range(5)), "b-0")
    one = serve()

    started = await one.start()
    again = await one.start()

    assert (_ids(started), again) == (["a-0", "a-1", "b-0"], [])
    assert await _parked(redis) == ["a-2", "a-3", "a-4"]
    assert await redis.zcount("arq:queue", "-inf", time.time() * 1000) == 0
    assert await redis.keys("arq:retry:*") == []
    assert await redis.zcard("arq:queue:leases") == 3
    assert await redis.exists("arq:in-progress:a-2") == 0


async def test_each_end_lets_the_next_one_start(redis: Redis, serve: Serve) -> None:
    """In the order of due times, at the first attempt, however many newer ones arrive meanwhile."""
    await _enqueue(redis, *(f"a-{number}" for number in range(6)), seconds_ago=60)
    one, order = serve(), []
    running = await one.start()
    for number in range(6, 12):
        await _enqueue(redis, f"a-{number}")
    while running:
        order += [(claim.job_id, claim.attempt) for claim in running]
        await one.done(running[0])
        running = [*running[1:], *await one.start()]
        order = [*dict.fromkeys(order)]

    assert order == [(f"a-{number}", 1) for number in range(12)]
    assert await redis.keys("arqonce:limits:held:*") == []
    assert await redis.keys("arqonce:limits:parked:*") == []
    assert await redis.exists("arqonce:limits:looks") == 0


async def test_nobody_overtakes_one_that_is_due_again(redis: Redis, serve: Serve) -> None:
    """The permit is its own from the end of another on, although it is not claimed yet."""
    await _enqueue(redis, "a-0", "a-1", "a-2", seconds_ago=60)
    one, two = serve(), serve()
    running = await one.start()
    await _enqueue(redis, "a-new", seconds_ago=90)  # older than it
    await one.done(running[0])
    new = (await two.claim(1)).claims

    assert (_ids(new), await two.admit(new)) == (["a-new"], [])
    assert _ids(await two.start()) == ["a-2"]


async def test_a_retry_and_what_is_given_back_free_their_permits(redis: Redis, serve: Serve) -> None:
    """And wait for one again as the others do."""
    await _enqueue(redis, "a-0", "a-1", "a-2", "a-3")
    one = serve()
    later, back = await one.start()

    await one.give_up([one.with_permits(postpone(later, timedelta(hours=1))), one.with_permits(give_back(back))])

    assert _ids(await one.start()) == ["a-2", "a-3"]
    assert await _parked(redis) == ["a-1"]


async def test_a_killed_workers_permits_come_back_with_its_jobs(redis: Redis, serve: Serve) -> None:
    """With the end of their leases: the job itself is claimed again, and keeps its permit; none starts beside it."""
    await _enqueue(redis, *(f"a-{number}" for number in range(4)))
    killed, other = serve(lease=LEASE), serve()
    left = await killed.start()
    assert (_ids(left), await other.start()) == (["a-0", "a-1"], [])
    await asyncio.sleep(LEASE.total_seconds() + 0.05)  # Redis' clock decides

    again = await other.start()
    await other.done(*again)

    assert [(claim.job_id, claim.attempt) for claim in again] == [("a-0", 2), ("a-1", 2)]
    assert _ids(await other.start()) == ["a-2", "a-3"]


async def test_a_permit_of_a_job_that_has_vanished_is_found(redis: Redis, serve: Serve) -> None:
    """Somebody has deleted it: its permit ends with its lease, and the next that asks gets it."""
    await _enqueue(redis, "a-0", "a-1", "a-2")
    killed, other = serve(lease=LEASE), serve()
    await killed.start()
    await redis.zrem("arq:queue", "a-0", "a-1")
    await asyncio.sleep(LEASE.total_seconds() + 0.05)  # Redis' clock decides
    await _enqueue(redis, "a-3")

    started = [*await other.start(), *await other.start()]

    assert sorted(_ids(started)) == ["a-2", "a-3"]


async def test_an_abort_pulls_a_parked_job_forward(redis: Redis, serve: Serve) -> None:
    """As arq does it; the next one that waits is not held up by it."""
    await _enqueue(redis, "a-0", "a-1", "a-2", "a-3")
    one = serve()
    running = await one.start()
    await redis.zadd("arq:queue", {"a-2": 1})
    await redis.zadd("arq:abort", {"a-2": time.time() * 1000})

    (aborted,) = (await one.claim(10)).claims
    await one.give_up([end(aborted, b"{}", keep=HOUR)])
    await one.done(running[0])

    assert (aborted.job_id, aborted.is_aborted) == ("a-2", True)
    assert _ids(await one.start()) == ["a-3"]


async def test_status_counts_parked_jobs_as_waiting(redis: Redis, serve: Serve) -> None:
    """And knows for how long."""
    await _enqueue(redis, "a-0", "a-1", "a-2", "a-3", seconds_ago=30)
    await serve().start()

    found = await read_queue_status(redis, "arq:queue")

    assert (found.waiting, found.deferred, found.running) == (2, 0, 2)
    assert found.oldest_waiting is not None
    assert 29 < found.oldest_waiting.total_seconds() < 40


async def test_jobs_of_several_queues_share_a_limit(redis: Redis, serve: Serve) -> None:
    """Each goes back to its own queue; a worker of one queue wakes the jobs of another."""
    await _enqueue(redis, "a-0", "a-1", "a-2", queue="low", seconds_ago=60)
    low, high = serve(queues="low"), serve(queues="high")
    running = await low.start()
    await _enqueue(redis, "a-urgent", queue="high")
    assert await high.start() == []

    await low.done(running[0])
    await low.done(*await low.start())

    assert (await _parked(redis, "low"), await _parked(redis, "high")) == ([], [])
    assert [(claim.queue, claim.job_id) for claim in await high.start()] == [("high", "a-urgent")]


async def test_a_job_takes_all_of_its_permits_or_none(redis: Redis, serve: Serve) -> None:
    """It holds none while it waits for another."""
    limits = (("each", 2, 0), ("all", 3, 0))
    await _enqueue(redis, "a-0", "a-1", "a-2", "b-0", "b-1", "b-2")
    one = serve()
    one.limits = limits
    one.permits_of = lambda claim: [  # type: ignore[method-assign]
        Permit(f"each:{claim.job_id[0]}", 2, 0), Permit("all:", 3, 0)
    ]  # fmt: skip

    started = [_ids(running := await one.start())]
    while running:
        await one.done(running.pop(0))
        started.append(_ids(new := await one.start()))
        running += new

    assert started[0] == ["a-0", "a-1", "b-0"]
    assert sorted(job_id for found in started for job_id in found) == ["a-0", "a-1", "a-2", "b-0", "b-1", "b-2"]
    assert max(map(len, started[1:])) == 1


async def test_a_changed_limit_holds_at_once_and_a_removed_one_frees_what_waits(redis: Redis, serve: Serve) -> None:
    """More may start as soon as the new code says so; and all, when nobody's code has said for a minute that it is."""
    await _enqueue(redis, *(f"a-{number}" for number in range(2000)))
    one = serve()
    for _ in range(30):
        await one.start()
    assert len(await _parked(redis)) == 1998
    await one.keep_in_force({"atonce": "5:0"})
    one.limits = (("atonce", 5, 0),)
    await redis.zadd("arqonce:limits:looks", {"atonce:a": 0})
    more = _ids(await one.start())

    await redis.delete("arqonce:limits:in-force:atonce")
    await redis.zadd("arqonce:limits:looks", {"atonce:a": 0})
    one.limits = ()
    one.permits_of = lambda claim: []  # type: ignore[method-assign]  # noqa: ARG005
    free: list[str] = []

    async def all_are_free() -> bool:
        free.extend(_ids((await one.claim(1000)).claims))
        return len(free) == 1995

    assert more == ["a-2", "a-3", "a-4"]
    await wait_until_async(all_are_free, 5)
    assert free[:3] == ["a-5", "a-6", "a-7"]
    assert await redis.exists("arqonce:limits:looks") == 0


async def test_what_redis_has_lost_of_limits_parks_nobody_for_ever(redis: Redis, serve: Serve) -> None:
    """Somebody has deleted our keys: what is parked is due again, with its old score."""
    await _enqueue(redis, *(f"a-{number}" for number in range(5)))
    one = serve()
    await one.start()
    scores = await redis.zrangebyscore("arq:queue", PARKED_MS, "+inf", withscores=True)
    for key in await redis.keys("arqonce:limits:*"):
        await redis.delete(key)

    await one.keep_in_force({"atonce": "2:0"})

    assert await _parked(redis) == []
    assert await redis.zscore("arq:queue", "a-2") == scores[0][1] - PARKED_MS
    assert _ids(await one.start()) == ["a-2", "a-3"]  # the others' permits were lost as well


async def test_keys_of_another_type_stop_nobody(redis: Redis, serve: Serve) -> None:
    """They are made anew."""
    for key in ("held:atonce:a", "starts:atonce:a", "parked:atonce:a", "looks"):
        await redis.set(f"arqonce:limits:{key}", "no such thing")
    await _enqueue(redis, "a-0", "a-1", "a-2")
    one = serve()

    started = await one.start()
    await one.done(*started)

    assert _ids([*started, *await one.start()]) == ["a-0", "a-1", "a-2"]


async def test_a_job_without_a_slot_is_parked_if_it_could_not_start(redis: Redis, serve: Serve) -> None:
    """Else it is given back, and takes no permit."""
    await _enqueue(redis, *(f"a-{number}" for number in range(4)), "b-0")
    one = serve()

    started = await one.start(slots=2)

    assert (_ids(started), await _parked(redis)) == (["a-0", "a-1"], ["a-2", "a-3"])
    assert _ids((await one.claim(10)).claims) == ["b-0"]
    assert await redis.exists("arqonce:limits:held:atonce:b") == 0


async def test_many_of_one_tenant_hold_up_nobody(redis: Redis, serve: Serve) -> None:
    """Twenty thousand, with a limit of ten: each is claimed once, and then costs nothing; others start at once."""
    await _enqueue(redis, *(f"a-{number}" for number in range(20_000)), seconds_ago=60)
    one = serve(("atonce", 10, 0))
    since, claimed = time.monotonic(), 0
    while claims := (await one.claim(500)).claims:
        claimed += len(claims)
        await one.admit(claims)
    took = time.monotonic() - since
    await _enqueue(redis, "b-0")
    since = time.monotonic()

    assert _ids(await one.start(10)) == ["b-0"]
    assert time.monotonic() - since < 0.5
    assert (claimed, len(await _parked(redis))) == (20_000, 19_990)
    assert took < 20  # measured 1.1 s


@pytest.mark.parametrize("seed", range(3))
async def test_no_window_has_more_starts_than_a_rate_says(redis: Redis, serve: Serve, seed: int) -> None:
    """Wherever it begins, by the server's clock; and none starts later than it could, however jobs arrive."""
    rng = random.Random(seed)
    most, per_ms = 5, 200
    workers = [serve(("rate", most, per_ms), ("atonce", 100, 0)) for _ in range(2)]
    starts: list[float] = []
    count = 40
    number = 0
    until = time.monotonic() + 20
    while len(starts) < count:
        assert time.monotonic() < until
        if number < count and rng.random() < 0.5:
            new = min(rng.randint(1, 10), count - number)
            await _enqueue(redis, *(f"a-{number + at}" for at in range(new)), seconds_ago=1)
            number += new
        worker = rng.choice(workers)
        running = await worker.start(rng.randint(1, 20))
        seconds, micros = await redis.time()
        starts += [seconds * 1000 + micros / 1000] * len(running)
        await worker.done(*running)
        await asyncio.sleep(rng.choice([0, 0, 0.005]))

    on_record = sorted(score for _, score in await redis.zrange("arqonce:limits:starts:rate:a", 0, -1, withscores=True))
    assert len(on_record) <= most
    windows = [later - first for first, later in zip(starts, starts[most:], strict=False)]
    assert min(windows) > per_ms - 20  # what was measured is up to a round trip later than the start
    assert starts[-1] - starts[0] < (count / most + 2) * (per_ms + 150)


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_start_that_was_granted_unheard_counts_for_no_rate(
    redis: Redis, serve: Serve, monkeypatch: pytest.MonkeyPatch, *, is_lost: bool
) -> None:
    """The job is given back, and would else wait for an hour; one that has begun has made its start."""
    await _enqueue(redis, "a-0")
    leases, work = serve(), ScriptedWork(m=succeed if is_lost else hang)
    work.permits = {"m": [Permit("rate:a", 1, 3_600_000), Permit("atonce:a", 1, 0)]}
    runs = Runs(work, leases, Slots[Run](2), bell=Bell(), observer=Observer())
    take = leases.take_permits

    async def take_unheard(applicants: Sequence[Applicant]) -> list[Admission]:
        monkeypatch.undo()
        await take(applicants)
        raise RedisConnectionError

    if is_lost:
        monkeypatch.setattr(leases, "take_permits", take_unheard)
    await runs.start(await leases.claim(1))
    if not is_lost:
        await asyncio.sleep(0)
        held = list(runs.running.tasks.values())
        runs.give_back_held(held)
        held[0].cancel()
    await runs.recorder.settle()

    started = await runs.start(await leases.claim(1))

    await runs.settle()
    assert (started, await _parked(redis)) == ((1, []) if is_lost else (0, ["a-0"]))


class _Fleet:
    """Three workers that end jobs, retry, give back and die, and the test's own account of which jobs are whose."""

    def __init__(self, workers: list[Limited], seed: int) -> None:
        self.workers = workers
        self.rng = random.Random(seed)
        self.running: list[dict[bytes, Claim]] = [{} for _ in workers]
        self.ended: set[str] = set()

    async def act(self) -> None:
        """Let one worker do something, and forget what is no longer its own."""
        at = self.rng.randrange(len(self.workers))
        worker, own = self.workers[at], self.running[at]
        what = self.rng.choice(["claim", "claim", "end", "end", "retry", "back", "die"])
        if what == "claim":
            room, slots = self.rng.randint(1, 10), self.rng.randint(1, 5)
            own |= {claim.id: claim for claim in await worker.start(room, slots=slots, is_idle=not own)}
        elif what == "die" and self.rng.random() < 0.3:
            own.clear()
        elif own:
            await self._end(worker, own.pop(self.rng.choice(list(own))), what)
        for worker, leased in zip(self.workers, self.running, strict=True):
            for job_id in await worker.renew(list(leased.values())):
                del leased[job_id]

    async def _end(self, worker: Limited, claim: Claim, what: str) -> None:
        if what == "end":
            given = end(claim, b"{}", keep=HOUR)
        else:
            given = postpone(claim, timedelta(0)) if what == "retry" else give_back(claim)
        if await worker.give_up([worker.with_permits(given)]) == [True] and what == "end":
            self.ended.add(claim.job_id)

    def count(self, tenant: str) -> int:
        """Return how many of a tenant's jobs run."""
        return sum(claim.job_id.startswith(tenant) for own in self.running for claim in own.values())


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_no_limit_is_exceeded_and_all_jobs_end(redis: Redis, serve: Serve, seed: int) -> None:
    """Whatever three workers do with the jobs of three tenants. Leases of 300 ms end meanwhile."""
    jobs = [f"{tenant}-{number}" for number in range(40) for tenant in "abc"]
    random.Random(seed).shuffle(jobs)
    await _enqueue(redis, *jobs, seconds_ago=60)
    fleet = _Fleet([serve(("atonce", 3, 0), lease=LEASE) for _ in range(3)], seed)
    until = time.monotonic() + 60
    while len(fleet.ended) < len(jobs):
        assert time.monotonic() < until, sorted(set(jobs) - fleet.ended)

        await fleet.act()

        assert [tenant for tenant in "abc" if fleet.count(tenant) > 3] == []

    assert await redis.zcard("arq:queue") == 0
    assert await redis.keys("arqonce:limits:parked:*") == []
