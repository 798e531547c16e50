"""A worker of arq's own class and one of ours on one queue, each killed once: what a service is while it moves."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

from arq.connections import ArqRedis
from arq.jobs import Job

from arqonce.testing.worker_process import WorkerProcess
from tests.arqonce.arq.conftest import COMMANDS, Command, StartShape
from tests.arqonce.arq.shapes.effects import read_effects
from tests.arqonce.arq.shapes.mixed import Asked, mix
from tests.conftest import wait_until_async
from tests.redis_keys import keys_of_jobs

JOBS = 204
"""A multiple of 6: as many jobs of each kind. Those of ``chain`` enqueue one more each."""

SLOTS = 10
"""How many jobs a worker runs at once, by default: those of a killed one run again."""


async def test_jobs_of_a_mixed_fleet_are_neither_lost_nor_wrong(
    start_shape: StartShape, shapes_pool: ArqRedis, effects: Path
) -> None:
    """What arq's own worker had when it was killed waits for 15 s: for the jobs' time limit, and 10 s more."""
    asked = list(mix(JOBS))
    later = [
        one._replace(job_id=one.job_id.removesuffix("-1") + "-0", result=0) for one in asked if one.name == "chain"
    ]
    for one in asked:
        await shapes_pool.enqueue_job(one.name, *one.args, _job_id=one.job_id)
    workers = {}
    for command in COMMANDS:  # arq's own first: ours might else have done all before that one has started
        workers[command] = start_shape(command, "mixed.WorkerSettings")
        await _wait_for_claim(shapes_pool, command)
    began = time.monotonic()

    for share, command in enumerate(COMMANDS, start=1):
        await _wait_for_results(shapes_pool, JOBS * share // 5)
        await _kill_while_it_has_jobs(workers[command], command, shapes_pool)
        workers[command] = start_shape(command, "mixed.WorkerSettings")
    await _wait_for_results(shapes_pool, len(asked + later))
    seconds = time.monotonic() - began
    codes = [await asyncio.to_thread(worker.stop) for worker in workers.values()]

    found = read_effects(effects)
    assert codes == [0, 0]
    assert await _wrong(shapes_pool, asked + later) == {}
    assert {one.job_id for one in asked + later} == found.keys()
    await wait_until_async(lambda: _has_only_results(shapes_pool), 5)
    shares = Counter(worker for effect in found.values() for worker in effect)
    repeated = sum(max(0, len(effect) - (2 if job.startswith("patient") else 1)) for job, effect in found.items())
    assert shares.keys() == COMMANDS.keys()
    assert repeated <= 2 * SLOTS
    print(f"{len(asked + later)} jobs in {seconds:.1f} s, effects: {dict(shares)}, repeated: {repeated}")  # noqa: T201 - figures of larger runs


async def _wait_for_claim(pool: ArqRedis, command: Command) -> None:
    await wait_until_async(lambda: _has_jobs(pool, command), 30)


async def _has_jobs(pool: ArqRedis, command: Command) -> bool:
    """Return whether a worker of this class has claimed jobs: all claims of arq's have one value."""
    claims = await pool.keys("arq:in-progress:*")
    owners = await pool.mget(claims) if claims else []
    return any((owner == b"1") == (command == "arq") for owner in owners if owner is not None)


async def _kill_while_it_has_jobs(worker: WorkerProcess, command: Command, pool: ArqRedis) -> None:
    async def is_caught() -> bool:
        os.kill(worker.process.pid, signal.SIGSTOP)
        if not await _has_jobs(pool, command):
            os.kill(worker.process.pid, signal.SIGCONT)
            return False
        worker.kill()
        return True

    await wait_until_async(is_caught, 30)


async def _wait_for_results(pool: ArqRedis, count: int) -> None:
    async def is_so() -> bool:
        await asyncio.sleep(0.02)
        return len(await pool.keys("arq:result:*")) >= count

    await wait_until_async(is_so, 90)


async def _wrong(pool: ArqRedis, asked: list[Asked]) -> dict[str, object]:
    """Return the jobs whose result is another than expected."""
    infos = {one: await Job(one.job_id, pool).result_info() for one in asked}
    return {
        one.job_id: info if info is None else info.result
        for one, info in infos.items()
        if info is None or not info.success or info.result != one.result
    }


async def _has_only_results(pool: ArqRedis) -> bool:
    others = {key for key in await keys_of_jobs(pool) if not key.startswith(b"arq:result:")}
    return all(key.startswith(b"arqonce:worker") for key in others)  # of a killed one, for another 45 s
