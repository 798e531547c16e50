"""Work as the engine sees it, without PostgreSQL: each job does what the test's function of its message's name does."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeAlias

from arqonce.work import Again, Claim, Ended, GivenBack, Outcome, Permit

DONE = Ended(succeeded=True, result=b"done")


class ScriptedJob:
    """A job."""

    held = None
    can_be_aborted = True
    context = None
    has_hook = False
    limit = timedelta(seconds=1)

    def __init__(self, work: "ScriptedWork", claim: Claim) -> None:
        """Look up what it does."""
        assert claim.message is not None
        self.work = work
        self.claim = claim
        self.is_aborted = claim.is_aborted
        self.name = self.label = claim.message.decode()
        self.permits = work.permits.get(self.name, ())
        self.kind = self.name if self.name in work.batches else None

    async def run(self) -> Outcome:
        """Do what its name says."""
        try:
            with self.work.noted([self]):
                return await self.work.scripts[self.name](self)
        except asyncio.CancelledError:
            if not self.is_aborted:
                raise
            return await self.aborted()

    async def aborted(self) -> Outcome:
        """End."""
        return Ended(succeeded=False, result=b"aborted")

    async def overdue(self) -> Outcome:
        """End."""
        return Ended(succeeded=False, result=b"overdue")

    def interrupted(self, *, is_stopping: bool) -> Outcome:
        """Go back to the queue, or end if it was nobody's wish."""
        return GivenBack() if is_stopping else Ended(succeeded=False, result=b"interrupted")

    def broken_off(self, error: Exception) -> Outcome:
        """End."""
        return Ended(succeeded=False, result=type(error).__name__.encode())

    async def recorded(self) -> None:
        """Never be called."""
        raise AssertionError


Script: TypeAlias = Callable[[ScriptedJob], Awaitable[Outcome]]
Batch: TypeAlias = Callable[[Sequence[ScriptedJob]], Awaitable[Sequence[Outcome | Again]]]


async def succeed(_job: ScriptedJob) -> Outcome:
    """End at once."""
    return DONE


async def sleep(_job: ScriptedJob) -> Outcome:
    """End after half a second."""
    await asyncio.sleep(0.5)
    return DONE


async def hang(_job: ScriptedJob) -> Outcome:
    """Run until it is cancelled."""
    await asyncio.Event().wait()
    return DONE


class ScriptedWork:
    """The work."""

    def __init__(self, batches: dict[str, Batch] | None = None, **scripts: Script) -> None:
        """Know what each job does, and what some do together."""
        self.scripts = scripts
        self.batches = batches or {}
        self.permits: dict[str, Sequence[Permit]] = {}
        """What jobs of a name need."""
        self.runs: list[list[str]] = []
        """The ids of the jobs of each run that has begun."""
        self.attempts: list[tuple[str, int]] = []
        """The attempts that have begun."""
        self.running: Counter[str] = Counter()
        self.most_running = 0
        self.disconnected = 0

    @contextmanager
    def noted(self, jobs: Sequence[ScriptedJob]) -> Iterator[None]:
        """Note that jobs run."""
        ids = [job.claim.job_id for job in jobs]
        self.runs.append(ids)
        self.attempts += [(job.claim.job_id, job.claim.attempt) for job in jobs]
        self.running.update(ids)
        self.most_running = max(self.most_running, self.running.total())
        try:
            yield
        finally:
            self.running.subtract(ids)

    def open(self, claim: Claim) -> ScriptedJob:
        """Read a claimed job."""
        return ScriptedJob(self, claim)

    def max_batch(self, kind: str) -> int:
        """Let all of one kind run together."""
        assert kind in self.batches
        return 100

    def spread(self, _kind: str) -> float:
        """Have two batches."""
        return 0

    async def run_together(self, jobs: Sequence[Any]) -> Sequence[Outcome | Again]:
        """Do what their name says."""
        with self.noted(jobs):
            return await self.batches[jobs[0].name](jobs)

    async def disconnect(self, task: Any) -> None:  # noqa: ANN401 - asyncio.Task of anything
        """Count."""
        assert isinstance(task, asyncio.Task)
        self.disconnected += 1
