"""Two kinds of work in one worker: a job is the registry's or a function's by its name."""

import asyncio
import pickle
from collections.abc import Sequence
from typing import Any

from arq.worker import JobExecutionFailed
from pydantic_core import PydanticSerializationError, to_jsonable_python

from arqonce.arq.functions import Call, Functions
from arqonce.execution.answers import Dumped
from arqonce.execution.work import RegistryJob, RegistryWork
from arqonce.failures import InvalidMessageError, JobFailedError
from arqonce.wire.codec import PICKLE, decode, encode
from arqonce.work import Again, Claim, Ended, Job, Outcome


class SideBySide:
    """Runs jobs of a registry and functions. JSON that neither knows is the registry's, which records the reason."""

    def __init__(self, registry: RegistryWork, functions: Functions) -> None:
        """Run both."""
        self._registry = registry
        self._functions = functions

    def open(self, claim: Claim) -> Job:
        """Read a claimed job: as a function's if its message names one, or is none of the registry's form."""
        job = self._functions.open(claim)
        if job.name in self._registry.registry and (claim.message or b"").startswith(PICKLE):
            return self._registry.open(_as_json(claim, job.call), PickledJob)
        if job.name in self._registry.registry:
            return self._registry.open(claim)
        if job.is_undecided or job.is_foreign or job.name in self._functions.by_name:
            return job
        return self._registry.open(claim)

    def max_batch(self, kind: str) -> int:
        """Return how many jobs of this kind may run in one transaction."""
        return self._registry.max_batch(kind)

    def spread(self, kind: str) -> float:
        """Return how many runs of several jobs of this kind are worth having; only those of the registry have any."""
        return self._registry.spread(kind)

    async def run_together(self, jobs: Sequence[RegistryJob]) -> Sequence[Outcome | Again]:
        """Run one attempt of several jobs of the registry."""
        return await self._registry.run_together(jobs)

    async def disconnect(self, task: "asyncio.Task[Any]") -> None:
        """End the connection of a job of the registry that does not end."""
        await self._registry.disconnect(task)


class PickledJob(RegistryJob):
    """A handler's job whose message is a pickle that the service reads. Its producer reads nothing but pickles."""

    def ended(self, answer: dict[str, Any] | Dumped | BaseException, tag: str | None = None) -> Ended:
        """Return the job's end with a result that needs arq alone to be read: a failure has its code as text."""
        end = super().ended(answer, tag)
        if end.result is None:
            return end
        message = decode(end.result)
        if isinstance(failure := message["r"], JobFailedError):
            message["r"] = JobExecutionFailed(str(failure))
        return end._replace(result=pickle.dumps(message))


def _as_json(claim: Claim, call: Call) -> Claim:
    """Return the claim with its message in JSON; as it is if an argument is none that JSON carries."""
    asked = {"t": call.tries, "f": call.name, "a": call.args, "k": call.kwargs, "et": call.enqueued_ms}
    try:
        return claim._replace(message=encode(to_jsonable_python(asked)), raw=claim.message)
    except (PydanticSerializationError, InvalidMessageError, ValueError):
        return claim
