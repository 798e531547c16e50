"""Two kinds of work in one worker: a job is the registry's or a function's by its name."""

import asyncio
from collections.abc import Sequence
from typing import Any

from arqonce.arq.functions import Functions
from arqonce.execution.work import RegistryJob, RegistryWork
from arqonce.work import Again, Claim, Job, Outcome


class SideBySide:
    """Runs jobs of a registry and functions. What neither knows is the registry's, which records why it is refused."""

    def __init__(self, registry: RegistryWork, functions: Functions) -> None:
        """Run both."""
        self._registry = registry
        self._functions = functions

    def open(self, claim: Claim) -> Job:
        """Read a claimed job: as a function's if its message names one, or is a pickle, which then waits."""
        job = self._functions.open(claim)
        if job.is_undecided or (job.name in self._functions.by_name and job.name not in self._registry.registry):
            return job
        return self._registry.open(claim)

    def max_batch(self, kind: str) -> int:
        """Return how many jobs of this kind may run in one transaction."""
        return self._registry.max_batch(kind)

    async def run_together(self, jobs: Sequence[RegistryJob]) -> Sequence[Outcome | Again]:
        """Run one attempt of several jobs of the registry."""
        return await self._registry.run_together(jobs)

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """End the connection of a job of the registry that does not end."""
        await self._registry.disconnect(task)
