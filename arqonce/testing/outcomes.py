"""The outcome of a job that was run in a test. Does not know what ran it."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from pydantic import BaseModel

from arqonce.payloads import AnyPayload
from arqonce.testing.recorded import RecordedJob, require_fields, written

PayloadT = TypeVar("PayloadT", bound=AnyPayload)
ResultT = TypeVar("ResultT", bound=BaseModel)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a job."""

    number: int
    """Counts from 1."""

    error: BaseException | None = None
    """The exception, with its causes; ``None`` if the attempt succeeded."""

    delay: timedelta | None = None
    """How long the worker would have waited before the next attempt; ``None`` if this was the last one."""


@dataclass(frozen=True)
class JobOutcome(Generic[ResultT]):
    """The end of a job: its result or its failure, and its attempts."""

    job_id: str
    result: ResultT | None
    failure: BaseException | None
    """The failure as a producer gets it, decoded from the wire. Its ``__cause__`` is the last attempt's error."""

    attempts: tuple[Attempt, ...]

    tag: str | None = field(default=None, repr=False)
    """Tag of the answered request, as it is stored with the result."""

    follow_ups: tuple[RecordedJob, ...] = field(default=(), repr=False)
    """The jobs that the job promised in its transaction, in the order of their due times; none if it failed."""

    def get(self) -> ResultT:
        """Return the result, or raise the failure."""
        __tracebackhide__ = True  # pytest's
        if self.failure is not None:
            raise self.failure
        if self.result is None:
            raise TypeError(f"the job {self.job_id} has neither a result nor a failure")
        return self.result

    def follow_up(self, payload: type[PayloadT], /, **fields: object) -> PayloadT:
        """Return the first follow-up of this kind with these field values; fail if there is none."""
        __tracebackhide__ = True
        require_fields(payload, fields)
        if found := [job for job in self.follow_ups if job.is_of(payload, fields)]:
            return found[0].read(payload)
        told = ", ".join(map(str, self.follow_ups)) or "no job"
        raise AssertionError(f"{written(payload, fields)} was not promised by job {self.job_id}; it promised {told}")
