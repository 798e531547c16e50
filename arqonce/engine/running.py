"""The runs of a worker that have a task: which jobs they run, for how long, and their cancellation."""

import asyncio
from collections.abc import Collection
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from arqonce.engine.run import Conclusion, Run
from arqonce.wire.bounds import LONGEST_NAME


class _Found(NamedTuple):
    run: Run
    started: float


class Running:
    """The runs that have started and not ended."""

    def __init__(self) -> None:
        """Begin with none. Belongs to the event loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._found: dict[asyncio.Task[Conclusion], _Found] = {}
        self.tasks: dict[str, asyncio.Task[Any]] = {}
        """The task of each running job, by id."""
        self._begun = asyncio.Event()

    def __contains__(self, task: object) -> bool:
        """Return whether the task runs, and has not been abandoned."""
        return task in self._found

    def __bool__(self) -> bool:
        """Return whether any run is under way."""
        return bool(self._found)

    def all_tasks(self) -> "set[asyncio.Task[Conclusion]]":
        """Return the tasks of all runs."""
        return set(self._found)

    async def begun(self) -> None:
        """Wait until a run is under way."""
        while not self._found:
            self._begun.clear()
            await self._begun.wait()

    def run_of(self, task: "asyncio.Task[Any] | None") -> Run | None:
        """Return the run of a task; ``None`` if it has none, or was abandoned."""
        found = None if task is None else self._found.get(task)
        return None if found is None else found.run

    def add(self, task: "asyncio.Task[Conclusion]", run: Run) -> None:
        """Take note of a run that starts now."""
        if not self._found:
            self._begun.set()
        self._found[task] = _Found(run, self._loop.time())
        for job in run.jobs:
            self.tasks[job.claim.job_id] = task

    def remove(self, task: "asyncio.Task[Conclusion]") -> tuple[Run, float]:
        """Forget a run; return it, and how many seconds it took."""
        found = self._found.pop(task)
        for job in found.run.jobs:
            if self.tasks.get(job.claim.job_id) is task:
                del self.tasks[job.claim.job_id]
        return found.run, self._loop.time() - found.started

    def ids_of(self, task: "asyncio.Task[Any] | None") -> list[str]:
        """Return the ids of the jobs that the task runs; may be called in any thread."""
        found = self._found.get(task) if task is not None else None
        return [] if found is None else [job.claim.job_id for job in found.run.jobs]

    def shown(self, most: int) -> list[tuple[str, str, float]]:
        """Return id, name and seconds since the start of running jobs, up to so many, the oldest first."""
        now = self._loop.time()
        jobs = ((job, found.started) for found in self._found.values() for job in found.run.jobs)
        return [(job.claim.job_id, job.name[:LONGEST_NAME], now - started) for job, started in islice(jobs, most)]

    def longest_limit(self) -> timedelta:
        """Return the longest time that a running job may take; may be called in any thread."""
        return max((found.run.limit for found in self._found.copy().values()), default=timedelta(0))

    def late(self, margin: timedelta) -> list["asyncio.Task[Conclusion]"]:
        """Return the tasks of runs that have taken longer than they may, and this margin."""
        now = self._loop.time()
        return [
            task
            for task, found in self._found.items()
            if timedelta(seconds=now - found.started) > found.run.limit + margin
        ]

    def abort(self, ids: Collection[bytes]) -> None:
        """Cancel the runs of these jobs, as far as they may be cancelled now."""
        for task, found in list(self._found.items()):
            wanted = [
                job for job in found.run.jobs if job.claim.id in ids and job.can_be_aborted and not job.is_aborted
            ]
            for job in wanted:
                job.is_aborted = True
            if wanted:
                task.cancel()

    def cancel(self) -> None:
        """Cancel all runs."""
        for task in self._found:
            task.cancel()

    def is_aborted(self, task: "asyncio.Task[Any] | None") -> bool:
        """Return whether a cancellation of this task comes from the worker: else a job has cancelled itself."""
        found = self._found.get(task) if task is not None else None
        return found is not None and any(job.is_aborted for job in found.run.jobs)
