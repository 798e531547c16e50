"""What code under test has enqueued: to be asked, and to be run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from jobs.arguments import read_payload
from jobs.codec import decode, encode
from jobs.failures import JobAbortedError
from jobs.payloads import AnyPayload
from jobs.results import JobInfo, read_info
from jobs.testing.run_job import JobOutcome, RunJob
from jobs.wire import now_ms

PayloadT = TypeVar("PayloadT", bound=AnyPayload)

_NO_DATABASE = (
    "to run jobs, drain needs the database: let the test be async and have the fixture run_job. A service that is not "
    "asynchronous is tested with a worker process: start_worker"
)


class NobodyWorksError(TimeoutError):
    """A result was waited for, and there is no worker."""


@dataclass(frozen=True)
class RecordedJob:
    """A job as it would stand in Redis."""

    job_id: str
    """The key, if one was given."""

    name: str
    """On the wire."""

    message: bytes = field(repr=False)
    due: datetime
    queue: str
    is_promised: bool = False
    """Whether it came through the outbox."""

    def __str__(self) -> str:
        """Write it as code would."""
        call = decode(self.message)
        fields = [*map(repr, call["a"]), *(f"{name}={value!r}" for name, value in call["k"].items())]
        return f"{self.name}({', '.join(fields)})"

    def read(self, payload: type[PayloadT]) -> PayloadT:
        """Return the payload, read as a worker does."""
        call = decode(self.message)
        return read_payload(payload, call["a"], call["k"])


class EnqueuedJobs:
    """What was enqueued. Made by the fixture ``enqueued``."""

    def __init__(self, run_job: RunJob | None) -> None:
        """Record; with ``run_job`` it can also be run."""
        self._run_job = run_job
        self._jobs: dict[str, RecordedJob] = {}
        self._outcomes: dict[str, JobOutcome[Any]] = {}

    @property
    def jobs(self) -> Sequence[RecordedJob]:
        """All that was enqueued, drained or not, in this order."""
        return list(self._jobs.values())

    def assert_enqueued(self, payload: type[PayloadT], /, **fields: object) -> PayloadT:
        """Return the first payload of this kind with these values of its fields, or fail and tell what there is."""
        __tracebackhide__ = True
        if found := self._find(payload, fields):
            return found[0]
        raise AssertionError(f"{_written(payload, fields)} was not enqueued; {self._told()}")

    def refute_enqueued(self, payload: type[AnyPayload] | None = None, /, **fields: object) -> None:
        """Fail if a job of this kind with these values of its fields was enqueued; without a kind, if any was."""
        __tracebackhide__ = True
        if payload is None:
            if self._jobs:
                raise AssertionError(f"nothing should have been enqueued; {self._told()}")
        elif self._find(payload, fields):
            raise AssertionError(f"{_written(payload, fields)} was enqueued; {self._told()}")

    async def drain(self) -> list[JobOutcome[Any]]:
        """Run all that waits, in the order in which it is due, and what that enqueues; handles have results then.

        Nobody waits for what is due later. All are run before the first failure, if there is one, is raised.
        """
        __tracebackhide__ = True
        if self._run_job is None:
            raise RuntimeError(_NO_DATABASE)
        outcomes = []
        while waiting := [job for job in self.jobs if job.job_id not in self._outcomes]:
            job = min(waiting, key=lambda job: job.due)
            outcome = await self._run_job.message(job.message, key=job.job_id)
            self._outcomes[job.job_id] = outcome
            outcomes.append(outcome)
        for outcome in outcomes:
            outcome.get()
        return outcomes

    def _find(self, payload: type[PayloadT], fields: Mapping[str, object]) -> list[PayloadT]:
        if unknown := sorted(fields.keys() - payload.model_fields.keys()):
            known = ", ".join(payload.model_fields)
            raise TypeError(f"{payload.__name__} has no field {', '.join(unknown)}: it has {known}")
        found = [job.read(payload) for job in self._jobs.values() if job.name == payload.job_name]
        return [one for one in found if all(getattr(one, name) == value for name, value in fields.items())]

    def _told(self) -> str:
        if not self._jobs:
            return "nothing was enqueued"
        return "enqueued: " + ", ".join(map(str, self._jobs.values()))

    def record(self, job: RecordedJob) -> bool:
        """Take a job, and say whether its id is new."""
        is_new = job.job_id not in self._jobs
        self._jobs.setdefault(job.job_id, job)
        return is_new

    def forget(self, job_id: str) -> None:
        """Give a job up: it was promised in a transaction that did not commit."""
        self._jobs.pop(job_id, None)

    def answer(self, job_id: str) -> bytes:
        """Return what Redis would have as the result of a job that was drained or aborted.

        Raises:
            NobodyWorksError: it was neither.
        """
        if job_id not in self._outcomes:
            raise NobodyWorksError(
                f"job {job_id} has no result: with the fixture enqueued no worker runs. Call enqueued.drain() before "
                "this; if the code under test itself waits, test it with a worker process: start_worker"
            )
        outcome, call = self._outcomes[job_id], decode(self._jobs[job_id].message)
        answer = {"s": outcome.failure is None, "r": outcome.result if outcome.failure is None else outcome.failure}
        now = now_ms()
        return encode({"t": len(outcome.attempts), "f": call["f"], "et": call["et"], "st": now, "ft": now} | answer)

    def info(self, job_id: str) -> JobInfo:
        """Say where a job is, as Redis would."""
        job = self._jobs.get(job_id)
        score = None if job is None else job.due.timestamp() * 1000
        data = self.answer(job_id) if job_id in self._outcomes else None
        return read_info(job_id, score=score, is_running=False, data=data)

    def abort(self, job_id: str) -> None:
        """End a job that waits, as a worker does that is asked for it: it is not run, and has a failure."""
        if job_id in self._jobs and job_id not in self._outcomes:
            self._outcomes[job_id] = JobOutcome(job_id, None, JobAbortedError("somebody has aborted the job"), ())


def _written(payload: type[AnyPayload], fields: Mapping[str, object]) -> str:
    return f"{payload.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
