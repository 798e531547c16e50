"""How a job that was run in a test has ended. Knows nothing of who ran it."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel

ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job."""

    number: int
    """From 1."""

    error: BaseException | None = None
    """What was raised, with its causes; ``None`` if the attempt succeeded."""

    delay: timedelta | None = None
    """How long the worker would have waited before the next one; ``None`` if it was the last."""


@dataclass(frozen=True)
class JobOutcome(Generic[ResultT]):
    """How a job has ended."""

    job_id: str
    result: ResultT | None
    failure: BaseException | None
    """As a producer gets it, from the wire; its ``__cause__`` is the error of the last attempt."""

    attempts: tuple[Attempt, ...]

    tag: str | None = field(default=None, repr=False)
    """Of the request that was answered, as it stands beside the result."""

    def get(self) -> ResultT:
        """Return the result, or raise the failure."""
        if self.failure is not None:
            raise self.failure
        if self.result is None:
            raise TypeError(f"the job {self.job_id} has neither a result nor a failure")
        return self.result
