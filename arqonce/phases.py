"""Jobs of two phases: slow work without a transaction, whose outcome is then stored exactly once."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.handlers import require_async, takes_job
from arqonce.job import JobContext
from arqonce.payloads import Payload

ResultT = TypeVar("ResultT", bound=BaseModel)
PayloadT = TypeVar("PayloadT", bound=Payload[BaseModel])
OutcomeT = TypeVar("OutcomeT")

LONGEST = timedelta(hours=12)
"""Longest deadline. Redis forgets after a day how often a job was started."""


@dataclass(frozen=True, kw_only=True)
class Phases(Generic[PayloadT, OutcomeT, ResultT]):
    """A handler in two phases. ``JobSpec`` takes it in place of a handler.

    ``work`` runs at least once, ``store`` takes effect exactly once. While it works, a job has neither session nor
    connection, and counts towards ``WORKER_MAX_WORKING`` in place of ``WORKER_MAX_JOBS``. A job that has ended does not
    work again.
    """

    work: Callable[[PayloadT], Awaitable[OutcomeT]] | Callable[[PayloadT, JobContext], Awaitable[OutcomeT]]
    """Calls other services, with ``job.idempotency_key`` where something must happen once, and returns the outcome.

    It may run again after a crash, a deploy or a failure. A ``JobFailedError`` that it raises is recorded and ends the
    job, without ``store``.
    """

    store: (
        Callable[[AsyncSession, PayloadT, OutcomeT], Awaitable[ResultT]]
        | Callable[[AsyncSession, PayloadT, OutcomeT, JobContext], Awaitable[ResultT]]
    )
    """Stores the outcome and returns the job's result, under the rules of a handler.

    When it fails in a way that may pass, it runs again with the same outcome, in the same worker.
    """

    deadline: timedelta = timedelta(minutes=5)
    """Longest duration of ``work`` in one attempt, at most 12 hours. That of ``store`` is the spec's."""

    def require_valid(self, job_name: str) -> None:
        """Return if both functions have the right parameters.

        Raises:
            TypeError: they do not, or the deadline is invalid; the text names the cure.
        """
        require_async(self.work, "work", job_name)
        require_async(self.store, "store", job_name)
        self.work_takes_job(job_name)
        self.store_takes_job(job_name)
        if not (isinstance(self.deadline, timedelta) and timedelta(0) < self.deadline <= LONGEST):
            raise TypeError(f"the job {job_name}: the deadline of its work is a timedelta of at most 12 hours")

    def work_takes_job(self, job_name: str) -> bool:
        """Return whether ``work`` takes the job's context."""
        return takes_job(self.work, f"the work of {job_name}", "payload", "job: JobContext")

    def store_takes_job(self, job_name: str) -> bool:
        """Return whether ``store`` takes the job's context."""
        return takes_job(self.store, f"the store of {job_name}", "session, payload, outcome", "job: JobContext")
