"""Decides how many jobs to claim, which of them run together, and what waits. Knows neither Redis nor what jobs do.

A slot is a run: of one job, or of a batch in one transaction. While two batches run nothing is claimed, for a quarter
of a second at most: what arrives waits in Redis and makes the next one larger, as in a database's group commit. So an
idle worker starts a single job at once, and a loaded one finds its own size. No batch waits for company.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import timedelta

from arqonce.engine.batch_run import BatchRun
from arqonce.engine.calls import BatchFunction
from arqonce.engine.job_run import JobRun

Run = JobRun | BatchRun

_BATCHES = 2
"""How many batches run before claims are held back: while one commits, the next is read and built."""

_MOST_AHEAD = 1000
"""Most jobs that are claimed at once: two batches of the usual size."""

_MOST_IN_RUN = 500
"""Most jobs of one run, as a rule (``JobSpec.max_batch``): what has no slot would have to be given back."""

_GROWTH = 4
"""How many times more jobs the next claim asks for when all of the last one could run together."""

_SLOW = timedelta(milliseconds=250)
"""A batch that takes longer halves the next claim; so long, at most, other jobs wait for batches to end."""


class Slots:
    """The runs of one worker: those that have started, and those that wait for a slot."""

    def __init__(self, most: int) -> None:
        """Allow ``most`` runs at once."""
        self._most = most
        self._running = 0
        self._batches = 0
        self._ahead = 0
        self._held_since: float | None = None
        self.waiting: deque[Run] = deque()

    @property
    def free(self) -> int:
        """How many more runs may start."""
        return self._most - self._running

    @property
    def are_few(self) -> bool:
        """Whether less than a quarter is free."""
        return 0 < self.free * 4 < self._most

    def room(self) -> int:
        """Return how many jobs to claim: one for each free slot, and more if they are likely to run together."""
        if self.waiting or self.free <= 0 or self._is_held():
            return 0
        return max(self.free, min(self._ahead, self.free * _MOST_IN_RUN))

    def _is_held(self) -> bool:
        if self._batches < _BATCHES:
            self._held_since = None
            return False
        now = time.monotonic()
        self._held_since = self._held_since or now
        return now - self._held_since < _SLOW.total_seconds()

    def plan(self, jobs: Sequence[JobRun], *, is_full: bool) -> tuple[list[Run], list[JobRun]]:
        """Put jobs that were claimed together into runs; return the runs that have a slot, and the jobs that have none.

        Those are given back to the queue: another worker may have a slot, and this one claims less from now on.
        """
        runs = _group(jobs)
        fitting, surplus = runs[: self.free], [job for run in runs[self.free :] for job in run.jobs]
        if surplus:
            self._ahead = 0
        elif is_full and not any(isinstance(run, JobRun) and not _can_join(run) for run in runs):
            self._ahead = min(_MOST_AHEAD, max(len(jobs), self._ahead) * _GROWTH)
        return fitting, surplus

    def started(self, run: Run) -> None:
        """Take a slot."""
        self._running += 1
        self._batches += isinstance(run, BatchRun)

    def ended(self, run: Run, *, seconds: float) -> None:
        """Free the slot."""
        self._running -= 1
        if isinstance(run, BatchRun):
            self._batches -= 1
            if seconds > _SLOW.total_seconds():
                self._ahead //= 2


def _can_join(job: JobRun) -> bool:
    return isinstance(job.function, BatchFunction) and job.is_ordinary


def _group(jobs: Iterable[JobRun]) -> list[Run]:
    """Make a run of each job, and one of all that can run together; the oldest first."""
    groups: dict[str, list[JobRun]] = {}
    for job in jobs:
        name = job.call.name if _can_join(job) else f"{job.call.name}\0{job.job_id}"
        groups.setdefault(name, []).append(job)
    return [run for group in groups.values() for run in _runs(group)]


def _runs(group: list[JobRun]) -> list[Run]:
    function = group[0].function
    if len(group) == 1 or not isinstance(function, BatchFunction):
        return list(group)
    parts = [group[at : at + function.most] for at in range(0, len(group), function.most)]
    return [BatchRun(group[0].worker, function, part) if len(part) > 1 else part[0] for part in parts]
