"""Part 2: how long one job takes on an idle worker, from before the enqueue to the commit, and to the result."""

import asyncio

from bench.contenders import Contender
from bench.drain import warm_worker
from bench.processes import ContenderError, open_producer
from bench.stage import Stage

_PAUSE = (0.02, 0.03)
"""Between two jobs, in seconds: the worker is idle, and the intervals are in step with no poll."""

_LONG_PAUSE = (0.35, 0.75)
"""For a contender that polls each half second."""

_SLOW_SHARE = 6
"""A slow contender gives a sixth of the samples."""

_FIRST = 1000
"""Number of the first user: those of the warm-up come before."""


async def latencies(stage: Stage, contender: Contender, *, samples: int) -> tuple[list[float], list[float]]:
    """Return the times from enqueue to commit and from enqueue to result, in seconds; no results if there are none.

    Raises:
        ContenderError: a job was not done.
    """
    count = max(10, samples // _SLOW_SHARE) if contender.is_slow else samples
    pause = _LONG_PAUSE if contender.is_slow else _PAUSE
    await stage.observer.empty()
    if contender.role == "floor":
        async with open_producer(contender, stage.target) as producer:
            answer = await producer.do("commits", first=_FIRST, count=count, pause=pause, limit=300)
            return await _until_commit(stage, answer["times"]), []
    async with warm_worker(stage, contender) as (_, producer_or_none):
        if producer_or_none is None:
            raise ContenderError("it has no producer")
        answer = await producer_or_none.do("commits", first=_FIRST, count=count, pause=pause, limit=300)
        commits = await _until_commit(stage, answer["times"])
        first = _FIRST + count
        results = await producer_or_none.do("results", first=first, count=count // 2, pause=pause, limit=300)
    return commits, results["seconds"]


async def _until_commit(stage: Stage, times: dict[str, float]) -> list[float]:
    for _ in range(200):
        committed = await stage.observer.commits()
        if times.keys() <= committed.keys():
            return [committed[name] - at for name, at in times.items()]
        await asyncio.sleep(0.05)
    raise ContenderError(f"only {len(committed)} users after {len(times)} jobs")
