"""Looks for requests to abort jobs: often while jobs run, seldom while none does."""

import asyncio
import math
from datetime import timedelta

from arqonce.engine.options import Options
from arqonce.engine.queue import Queue
from arqonce.engine.runs import Runs

_IDLE_LOOK = timedelta(seconds=10)
"""How often while no job runs: old requests must go, or they would hit a later job. Of idle workers only the one that
watches looks at all."""


class Aborts:
    """What one engine asks for. Its methods raise redis-py's errors."""

    def __init__(self, leases: Queue, runs: Runs, options: Options) -> None:
        """Ask for nothing yet."""
        self._leases = leases
        self._runs = runs
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._last = -math.inf

    def note(self) -> None:
        """Take note that a claim has looked itself."""
        self._last = self._loop.time()

    async def do(self) -> None:
        """Cancel the jobs that somebody wants aborted, if it is time to look. One round trip or none."""
        if self._options.rest.is_left_to_others or not self._options.aborts:
            return
        pause = self._options.poll if self._runs.claims else _IDLE_LOOK
        if self._loop.time() >= self._last + pause.total_seconds():
            self.note()
            self._runs.running.abort(await self._leases.aborted(self._runs.claims))
