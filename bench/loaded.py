"""Part 6: the latency of single urgent jobs on a worker that has as much to do as 70 % of what it can do."""

import asyncio

from bench.contenders import CONTENDERS
from bench.drain import drain, wait, warm_worker
from bench.latency import until_commit
from bench.parts import FAULTS, Plan, jobs_of_a_run, say, told
from bench.processes import ContenderError, open_producer
from bench.results import Results
from bench.stage import Stage

_OURS, _URGENT = CONTENDERS["ours"], CONTENDERS["ours-urgent"]

_LOAD = 0.7
"""Share of its capacity, measured just before."""

_PAUSE = (0.02, 0.03)
"""Seconds between two urgent jobs."""

_FIRST_URGENT, _FIRST_OTHER = 1_000_000, 10_000_000
"""Numbers of the first users."""

_LEAD = 1.0
"""Seconds of load before the first urgent job."""


async def measure_loaded(stage: Stage, plan: Plan, results: Results) -> None:
    """Part 6, only with our worker."""
    if "ours" not in plan.contenders:
        return
    try:
        capacity = await drain(stage, _OURS, jobs_of_a_run(plan, results.median("create_user", "ours") or 10_000))
        commits = await _commits(stage, rate=_LOAD * capacity.rate, samples=plan.samples)
    except FAULTS as error:
        told(results, "loaded", _URGENT, error)
        return
    say(f"loaded with {_LOAD * capacity.rate:,.0f}/s: {sorted(commits)[len(commits) // 2] * 1000:.2f} ms")
    results.add("loaded", "ours", *(1000 * value for value in commits))
    results.add("load", "ours", _LOAD * capacity.rate)


async def _commits(stage: Stage, *, rate: float, samples: int) -> list[float]:
    seconds = 2 * _LEAD + samples * sum(_PAUSE) / 2
    await stage.observer.empty()
    async with (
        warm_worker(stage, _URGENT) as (worker, producer),
        open_producer(_OURS, stage.target) as other,
        asyncio.TaskGroup() as group,
    ):
        if producer is None:
            raise ContenderError("it has no producer")
        load = group.create_task(other.do("pour", first=_FIRST_OTHER, rate=rate, seconds=seconds, limit=seconds + 60))
        await asyncio.sleep(_LEAD)
        answer = await producer.do("commits", first=_FIRST_URGENT, count=samples, pause=_PAUSE, limit=seconds + 60)
        commits = await until_commit(stage, answer["times"])
        poured = (await load)["poured"]

        async def is_done() -> bool:
            return await stage.observer.users() >= int(poured) + samples

        await wait(worker, is_done, 60)
        if poured < 0.8 * rate * seconds:
            raise ContenderError(f"the producer of the load managed only {poured / seconds:,.0f} of {rate:,.0f} jobs/s")
    return commits
