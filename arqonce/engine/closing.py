"""Ends a worker's claims, runs and records in limited time, whatever of them does not end by itself."""

import asyncio
import math
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from redis.exceptions import RedisError

from arqonce.engine.idle import Waking
from arqonce.engine.runs import Runs

_CLOSE_LIMIT = timedelta(seconds=8)
"""How long the end may take for jobs that were cancelled and for Redis to take the last results and keys, together."""

_STEP_LIMIT = timedelta(seconds=3)
"""How long each step of that may take."""

_SILENT_LIMIT = timedelta(milliseconds=250)
"""The same for what is asked of a Redis that has not answered the step before: the hooks at the end need time, too."""

_HELD_LIMIT = timedelta(seconds=1)
"""How long a job may take to end after its second cancellation. After that it counts as held."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.closing")


class Closing:
    """The end of an engine. Belongs to its event loop."""

    def __init__(self, runs: Runs, waking: Waking) -> None:
        """End nothing yet."""
        self._runs = runs
        self._waking = waking
        self._loop = asyncio.get_running_loop()
        self._closed_by = math.inf
        self._is_silent = False
        self.held: list[str] = []
        """The jobs that go on though they were cancelled; nobody waits for them."""

    async def close(self, claiming: "asyncio.Task[Any] | None") -> None:
        """End the claim that is under way and all jobs, and let another worker watch the queue, in limited time."""
        self._closed_by = self._loop.time() + _CLOSE_LIMIT.total_seconds()
        await self._end_claim(claiming)
        await self._end_jobs()

    def step(self) -> float:
        """Return for how many seconds a step of the end may last."""
        return max(0.1, min(_STEP_LIMIT.total_seconds(), self._closed_by - self._loop.time()))

    def redis_step(self) -> float:
        """Return the same for a step that waits for Redis."""
        return min(self.step(), _SILENT_LIMIT.total_seconds()) if self._is_silent else self.step()

    async def _end_claim(self, claiming: "asyncio.Task[Any] | None") -> None:
        if claiming is not None:
            _, unanswered = await asyncio.wait([claiming], timeout=self.step())
            self._is_silent = bool(unanswered)
        try:
            async with asyncio.timeout(self.redis_step()):
                await self._waking.resign()
        except TimeoutError:
            self._is_silent = True
        except (RedisError, OSError):
            pass

    async def _end_jobs(self) -> None:
        if running := set(self._runs.running.tasks.values()):
            _, running = await asyncio.wait(running, timeout=self.step())
            for task in running:
                task.cancel()
            if running:
                _, running = await asyncio.wait(running, timeout=_HELD_LIMIT.total_seconds())
            self.held = self._runs.give_back_held(running)
            if self.held:
                _log.error("jobs hold on though they were cancelled: they are given back", job_ids=self.held)
        await asyncio.sleep(0)  # what has just ended is handed over in the next turn
        with suppress(TimeoutError):
            async with asyncio.timeout(self.redis_step()):
                await self._runs.recorder.settle()
        self._runs.recorder.cancel()
