"""Part 2: the latency of one job on an idle worker, from before the enqueue to the commit, and to the result."""

import asyncio

from bench.contenders import Contender
from bench.drain import warm_worker
from bench.processes import ContenderError, open_producer
from bench.stage import Stage

_PAUSE = (0.02, 0.03)
"""Pause between two jobs, in seconds, random so that it does not synchronize with polling. The worker is idle."""

_LONG_PAUSE = (0.35, 0.75)
"""The same for a contender that polls every half second."""

_SLOW_SHARE = 6
"""A slow contender takes this fraction of the samples: a sixth."""

_FIRST = 1000
"""Number of the first user, above those of the warm-up."""


async def latencies(stage: Stage, contender: Contender, *, samples: int) -> tuple[list[float], list[float]]:
    """Return the times from enqueue to commit and from enqueue to result, in seconds.

    The second list is empty if the contender has no results.

    Raises:
        ContenderError: a job did not end.
    """
    count = max(10, samples // _SLOW_SHARE) if contender.is_slow else samples
    pause = _LONG_PAUSE if contender.is_slow else _PAUSE
    await stage.observer.empty()
    if contender.role == "floor":
        async with open_producer(contender, stage.target) as producer:
            answer = await producer.do("commits", first=_FIRST, count=count, pause=pause, limit=300)
            return await until_commit(stage, answer["times"]), []
    async with warm_worker(stage, contender) as (_, producer_or_none):
        if producer_or_none is None:
            raise ContenderError("it has no producer")
        answer = await producer_or_none.do("commits", first=_FIRST, count=count, pause=pause, limit=300)
        commits = await until_commit(stage, answer["times"])
        first = _FIRST + count
        results = await producer_or_none.do("results", first=first, count=count // 2, pause=pause, limit=300)
    return commits, results["seconds"]


async def until_commit(stage: Stage, times: dict[str, float]) -> list[float]:
    """Wait until all users with these names are stored; return how long that took each, in seconds.

    Raises:
        ContenderError: some are not.
    """
    for _ in range(200):
        committed = await stage.observer.commits()
        if times.keys() <= committed.keys():
            return [committed[name] - at for name, at in times.items()]
        await asyncio.sleep(0.05)
    raise ContenderError(f"only {len(committed)} users after {len(times)} jobs")
