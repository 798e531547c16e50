"""Work of the tests' own that runs jobs together, as the engine sees it: functions, some of which take many jobs."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from arq.worker import Function

from arqonce.arq.functions import FunctionJob, Functions
from arqonce.arq.worker import Worker
from arqonce.work import Again, Claim, Outcome, Work

Answer: TypeAlias = dict[str, Any] | Exception | Again


class BatchCall(NamedTuple):
    """One job of a batch."""

    job_id: str
    attempt: int


Together = Callable[[dict[Any, Any], Sequence[BatchCall]], Awaitable[list[Answer]]]


@dataclass
class BatchFunction(Function):
    """A function that can also be called for many jobs at once."""

    together: Together
    most: int


class BatchJob(FunctionJob):
    """A job that may run with others."""

    @property
    def attempt(self) -> int:
        """The attempt's number."""
        return self._attempt

    @property
    def kind(self) -> str | None:  # type: ignore[override] # functions have none
        """The function's name, if it takes many."""
        is_batch = isinstance(self._function, BatchFunction)
        return self.name if is_batch and not self.is_aborted and self._counted <= self._limit else None

    def outcome(self, answer: dict[str, Any] | Exception) -> Outcome:
        """Return what becomes of the job."""
        self._has_begun = True
        return self._failed(answer) if isinstance(answer, Exception) else self._end(answer, succeeded=True)


class BatchWork(Functions):
    """Functions, of which some take many jobs at once."""

    def open(self, claim: Claim) -> BatchJob:
        """Read a claimed job."""
        return BatchJob(self, claim)

    def max_batch(self, kind: str) -> int:
        """Return how many the function takes."""
        function = self.by_name[kind]
        assert isinstance(function, BatchFunction)
        return function.most

    async def run_together(self, jobs: Sequence[Any]) -> Sequence[Outcome | Again]:
        """Call the function for all of them."""
        function = self.by_name[jobs[0].name]
        assert isinstance(function, BatchFunction)
        for job in jobs:
            job.can_be_aborted = True
        calls = [BatchCall(job.claim.job_id, job.attempt) for job in jobs]
        async with asyncio.timeout(function.timeout_s):
            answers = await function.together(self.settings.ctx, calls)
        return [
            answer if isinstance(answer, Again) else job.outcome(answer)
            for job, answer in zip(jobs, answers, strict=True)
        ]


class BatchWorker(Worker):
    """A worker of such functions."""

    def _build_work(self) -> Work:
        functions = super()._build_work()
        assert isinstance(functions, Functions)
        return BatchWork(functions.by_name, functions.settings)
