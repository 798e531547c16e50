"""How many jobs a worker claims, which of them run together, and what goes back."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import pytest
from arq.connections import ArqRedis

from arqonce.engine.leases import Leases
from arqonce.engine.queue import Claimed
from arqonce.wire.codec import encode
from tests.arqonce.conftest import BuildWorker, Context, build_function, run_in_background, stop
from tests.arqonce.engine.batches import Answer, BatchCall, BatchFunction, BatchWorker
from tests.conftest import wait_until_async


async def _single(_ctx: Context) -> None: ...


async def _together(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
    return [{}] * len(jobs)


_BATCHED = BatchFunction(**vars(build_function(_single, name="batched")), together=_together, most=500)


@pytest.fixture
def rooms(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Return for how many jobs each call had room, and how many it has claimed."""
    found: list[tuple[int, int]] = []
    claim = Leases.claim

    async def note(leases: Leases, room: int, *, watch: timedelta, is_idle: bool) -> Claimed:
        claimed = await claim(leases, room, watch=watch, is_idle=is_idle)
        found.append((room, len(claimed.claims)))
        return claimed

    monkeypatch.setattr(Leases, "claim", note)
    return found


async def _enqueue(pool: ArqRedis, name: str, number: int) -> list[bytes]:
    jobs = await asyncio.gather(*(pool.enqueue_job(name) for _ in range(number)))
    return [job.job_id.encode() for job in jobs if job is not None]


@pytest.mark.parametrize(("most", "grown"), [(100, [300, 300]), (500, [500, 500]), (800, [640, 800])])
async def test_claims_grow_while_all_can_run_together(
    pool: ArqRedis, build: BuildWorker, rooms: list[tuple[int, int]], most: int, grown: list[int]
) -> None:
    """From one for each slot to a batch of the usual size, or of a kind's own; each job ends once."""
    await _enqueue(pool, "batched", 3000)
    kind = BatchFunction(**vars(_BATCHED) | {"most": most})

    done = await (await build(kind, kind=BatchWorker)).run_check()

    claimed = [room for room, _ in rooms]
    assert (claimed[:4], max(claimed), done) == ([10, 40, 160, grown[0]], grown[1], 3000)


async def test_ordinary_jobs_are_claimed_one_for_each_slot(
    pool: ArqRedis, build: BuildWorker, rooms: list[tuple[int, int]]
) -> None:
    """More would wait for this worker while others are idle."""
    await _enqueue(pool, "_single", 200)

    await (await build(_single)).run_check()

    assert max(room for room, _ in rooms) == 10


async def test_what_has_no_slot_goes_back_to_its_place(
    pool: ArqRedis, build: BuildWorker, rooms: list[tuple[int, int]]
) -> None:
    """Ordinary jobs behind many that ran together: unlocked, uncounted and due as before, for other workers."""
    end, attempts = asyncio.Event(), list[int]()

    async def work(ctx: Context) -> None:
        attempts.append(ctx["job_try"])
        await end.wait()

    await _enqueue(pool, "batched", 210)
    ids = await _enqueue(pool, "work", 100)
    before = {job_id: await pool.zscore("arq:queue", job_id) for job_id in ids}
    task = await run_in_background(await build(_BATCHED, work, burst=False, kind=BatchWorker))

    async def are_back() -> bool:
        return len(attempts) == 10 and len(await pool.keys("arq:in-progress:*")) == 10

    await wait_until_async(are_back, 10)
    running = {key.removeprefix(b"arq:in-progress:") for key in await pool.keys("arq:in-progress:*")}
    after = {job_id: await pool.zscore("arq:queue", job_id) for job_id in ids}
    assert rooms[-1] == (500, 100)  # so that 90 had no slot
    assert {job_id: after[job_id] for job_id in ids if job_id not in running} == {
        job_id: before[job_id] for job_id in ids if job_id not in running
    }
    assert await pool.keys("arq:retry:*") == []

    end.set()
    await wait_until_async(lambda: _is_empty(pool), 10)
    await stop(task)
    assert attempts == [1] * 100


async def _is_empty(pool: ArqRedis) -> bool:
    return not await pool.zcard("arq:queue")


@pytest.mark.parametrize(("batches", "delay"), [(1, (0.0, 0.24)), (2, (0.24, 2.0))])
async def test_two_batches_hold_the_next_claim_for_a_quarter_of_a_second(
    pool: ArqRedis, build: BuildWorker, batches: int, delay: tuple[float, float]
) -> None:
    """What arrives meanwhile makes the next one larger; but batches that hang do not keep other jobs for ever."""
    running, end = [0], asyncio.Event()
    ran: list[float] = []

    async def hang(_ctx: Context, jobs: Sequence[BatchCall]) -> list[Answer]:
        running.append(running[-1] + 1)
        await end.wait()
        return [{}] * len(jobs)

    async def work(_ctx: Context) -> None:
        ran.append(time.monotonic())

    hanging = BatchFunction(**vars(_BATCHED) | {"together": hang})
    task = await run_in_background(await build(hanging, work, burst=False, poll_delay=0.01, kind=BatchWorker))
    for number in range(1, batches + 1):
        await _enqueue_at_once(pool, number)
        await wait_until_async(partial(_is, running, number), 5)
    started = time.monotonic()
    await pool.enqueue_job("work")
    await wait_until_async(lambda: _is_there(ran), 5)

    assert delay[0] <= ran[0] - started < delay[1]
    end.set()
    await wait_until_async(lambda: _is_empty(pool), 5)
    await stop(task)


async def _enqueue_at_once(pool: ArqRedis, number: int) -> None:
    message = encode({"t": None, "f": "batched", "a": [], "k": {}, "et": 0})
    async with pool.pipeline(transaction=True) as pipe:
        for at in range(3):
            pipe.set(f"arq:job:{number}-{at}", message)
        pipe.zadd("arq:queue", {f"{number}-{at}": 1 for at in range(3)})
        await pipe.execute()


async def _is(running: list[int], number: int) -> bool:
    return running[-1] == number


async def _is_there(found: Sequence[object]) -> bool:
    return bool(found)
