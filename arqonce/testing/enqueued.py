"""What code under test has enqueued: to be asked, to be answered, and to be run. Needs neither worker nor database."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from arqonce.failures import JobAbortedError
from arqonce.payloads import AnyPayload
from arqonce.testing.answers import Answer
from arqonce.testing.outcomes import JobOutcome
from arqonce.wire.arguments import read_payload
from arqonce.wire.codec import decode
from arqonce.wire.status import JobStatus

PayloadT = TypeVar("PayloadT", bound=AnyPayload)

_NO_WORKER = (
    "to run jobs, drain needs arqonce[worker] and a database: let the test be async and have the fixture "
    "run_job. Elsewhere a test says itself what a job answers: enqueued.answer(CreateUser, UserView(...)); or it has a "
    "worker process: start_worker"
)


class NobodyWorksError(TimeoutError):
    """A result was waited for, and there is no worker."""


class RunMessage(Protocol):
    """Runs jobs: the fixture ``run_job``."""

    async def message(self, message: bytes, *, key: str) -> JobOutcome[Any]:
        """Run a message of Redis."""
        ...


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

    request_hash: bytes | None = field(default=None, repr=False)
    """What tells a promise from another with the same key."""

    @classmethod
    def of(
        cls, job_id: str, message: bytes, *, due_ms: int, queue: str, request_hash: bytes | None = None
    ) -> "RecordedJob":
        """Make one of what is sent; a promise has a ``request_hash``."""
        due = datetime.fromtimestamp(due_ms / 1000, UTC)
        is_promised = request_hash is not None
        return cls(job_id, decode(message)["f"], message, due, queue, is_promised, request_hash)

    def __str__(self) -> str:
        """Write it as code would."""
        call = decode(self.message)
        fields = [*map(repr, call["a"]), *(f"{name}={value!r}" for name, value in call["k"].items())]
        return f"{self.name}({', '.join(fields)})"

    def read(self, payload: type[PayloadT]) -> PayloadT:
        """Return the payload, read as a worker does."""
        call = decode(self.message)
        return read_payload(payload, call["a"], call["k"])

    def is_of(self, payload: type[AnyPayload], fields: Mapping[str, object]) -> bool:
        """Say whether it is of this kind, with these values of its fields."""
        if self.name != payload.job_name:
            return False
        found = self.read(payload)
        return all(getattr(found, name) == value for name, value in fields.items())


class EnqueuedJobs:
    """What was enqueued. Made by the fixture ``enqueued``."""

    def __init__(self, run_job: RunMessage | None = None) -> None:
        """Record; with ``run_job`` it can also be run."""
        self._run_job = run_job
        self._jobs: dict[str, RecordedJob] = {}
        self._ends: dict[str, bytes] = {}
        self._answers: list[Callable[[RecordedJob], Answer | None]] = []
        self.needs_tables = True

    @property
    def jobs(self) -> Sequence[RecordedJob]:
        """All that was enqueued, drained or not, in this order."""
        return list(self._jobs.values())

    def assert_enqueued(self, payload: type[PayloadT], /, **fields: object) -> PayloadT:
        """Return the first payload of this kind with these values of its fields, or fail and tell what there is."""
        __tracebackhide__ = True
        if found := self._find(payload, fields):
            return found[0].read(payload)
        raise AssertionError(f"{_written(payload, fields)} was not enqueued; {self._told()}")

    def assert_not_enqueued(self, payload: type[AnyPayload] | None = None, /, **fields: object) -> None:
        """Fail if a job of this kind with these values of its fields was enqueued; without a kind, if any was."""
        __tracebackhide__ = True
        if payload is None:
            if self._jobs:
                raise AssertionError(f"nothing should have been enqueued; {self._told()}")
        elif self._find(payload, fields):
            raise AssertionError(f"{_written(payload, fields)} was enqueued; {self._told()}")

    def answer(self, payload: type[AnyPayload], answer: BaseModel | Exception, /, **fields: object) -> None:
        """End every job of this kind with these values of its fields so, with a result or a failure, without a worker.

        That is each that waits now and each that is enqueued later. Of several answers that fit, the one given last
        counts; a job that has ended keeps its own. Code under test gets what it would read in Redis.

        Raises:
            TypeError: this kind of job does not answer so, or has no such field.
        """
        _require_fields(payload, fields)
        given = Answer.of(payload, answer)
        self._answers.append(lambda job: given.to(job.read(payload)) if job.is_of(payload, fields) else None)
        for job in self._waiting():
            self._settle(job)

    def promises_need_no_tables(self) -> None:
        """Record what ``enqueue_in`` promises from now on without a statement, whatever connection it is given.

        For a service that is tested on SQLite, on a database without the tables of the workers, or with a mock. A
        session or connection of SQLAlchemy still tells when it is rolled back; others do not, and promise what they
        were asked to. A key that is promised twice is a duplicate, or a conflict, as in the table.
        """
        self.needs_tables = False

    async def drain(self) -> list[JobOutcome[Any]]:
        """Run all that waits, in the order in which it is due, and what that enqueues; handles have results then.

        Nobody waits for what is due later. All are run before the first failure, if there is one, is raised.

        Raises:
            RuntimeError: the test has no ``run_job``.
        """
        __tracebackhide__ = True
        if self._run_job is None:
            raise RuntimeError(_NO_WORKER)
        outcomes = []
        while waiting := self._waiting():
            job = min(waiting, key=lambda job: job.due)
            outcome = await self._run_job.message(job.message, key=job.job_id)
            value = outcome.result if outcome.failure is None else outcome.failure
            end = Answer(value, is_success=outcome.failure is None, tag=outcome.tag)
            self._ends[job.job_id] = end.message(job.message, attempts=len(outcome.attempts))
            outcomes.append(outcome)
        for outcome in outcomes:
            outcome.get()
        return outcomes

    def _find(self, payload: type[AnyPayload], fields: Mapping[str, object]) -> list[RecordedJob]:
        _require_fields(payload, fields)
        return [job for job in self._jobs.values() if job.is_of(payload, fields)]

    def _waiting(self) -> list[RecordedJob]:
        return [job for job in self.jobs if job.job_id not in self._ends]

    def _told(self) -> str:
        if not self._jobs:
            return "nothing was enqueued"
        return "enqueued: " + ", ".join(map(str, self._jobs.values()))

    def _settle(self, job: RecordedJob) -> None:
        answers = (answer(job) for answer in reversed(self._answers))
        if end := next(filter(None, answers), None):
            self._ends[job.job_id] = end.message(job.message, attempts=1)

    # What follows stands in for Redis and the outbox. It takes and returns what goes over the wire: the clients that
    # call it may be of another copy of this package, under another name.

    def record(self, job: RecordedJob) -> bool:
        """Take a job, and say whether its id is new."""
        if job.job_id in self._jobs:
            return False
        self._jobs[job.job_id] = job
        self._settle(job)
        return True

    def promise(self, job: RecordedJob) -> None:
        """Take a job that the outbox has as new: an earlier promise under its key was rolled back, then."""
        if (earlier := self._jobs.get(job.job_id)) and earlier.is_promised:
            self.forget(earlier)
        self.record(job)

    def outcome_of(self, job: RecordedJob) -> str:
        """Return what the outbox would say to a promise, if it had those that were recorded."""
        known = self._jobs.get(job.job_id)
        if known is None or not known.is_promised:
            return "new"
        is_same = (known.name, known.request_hash) == (job.name, job.request_hash)
        return "duplicate" if is_same else "conflict"

    def status_in_tables(self, job_id: str) -> str:
        """Return what ``arqonce.outbox.status_in`` would find."""
        job = self._jobs.get(job_id)
        if job_id in self._ends:
            return JobStatus.COMPLETE
        return JobStatus.PROMISED if job and job.is_promised else JobStatus.NOT_FOUND

    def forget(self, job: RecordedJob) -> None:
        """Give a job up: it was promised in a transaction that did not commit."""
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]
            self._ends.pop(job.job_id, None)

    def due_ms(self, job_id: str) -> float | None:
        """Return the job's score in the queue; ``None`` if there is no such job."""
        job = self._jobs.get(job_id)
        return None if job is None else job.due.timestamp() * 1000

    def end(self, job_id: str) -> bytes | None:
        """Return what Redis would have as the job's result."""
        return self._ends.get(job_id)

    def result(self, job_id: str) -> bytes:
        """Return what Redis would have as the result of a job that was drained, answered or aborted.

        Raises:
            NobodyWorksError: it was not.
        """
        if job_id in self._ends:
            return self._ends[job_id]
        raise NobodyWorksError(
            f"job {job_id} has no result: with the fixture enqueued no worker runs. Say before what it answers, as in "
            "enqueued.answer(CreateUser, UserView(...)); or call enqueued.drain() before this; or, if the code under "
            "test itself waits for a job that shall really run, test it with a worker process: start_worker"
        )

    def abort(self, job_id: str) -> None:
        """End a job that waits, as a worker does that is asked for it: it is not run, and has a failure."""
        if job_id in self._jobs and job_id not in self._ends:
            end = Answer(JobAbortedError("somebody has aborted the job"), is_success=False)
            self._ends[job_id] = end.message(self._jobs[job_id].message, attempts=0)


def _require_fields(payload: type[AnyPayload], fields: Mapping[str, object]) -> None:
    if unknown := sorted(fields.keys() - payload.model_fields.keys()):
        known = ", ".join(payload.model_fields)
        raise TypeError(f"{payload.__name__} has no field {', '.join(unknown)}: it has {known}")


def _written(payload: type[AnyPayload], fields: Mapping[str, object]) -> str:
    return f"{payload.__name__}({', '.join(f'{name}={value!r}' for name, value in fields.items())})"
