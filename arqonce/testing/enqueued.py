"""Records what code under test enqueues, to check it, answer it or run it. Needs neither worker nor database."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from arqonce.failures import JobAbortedError
from arqonce.payloads import AnyPayload
from arqonce.resources import Resource
from arqonce.testing.answers import Answer
from arqonce.testing.outcomes import JobOutcome
from arqonce.testing.recorded import RecordedJob, require_fields, written
from arqonce.wire.status import JobStatus

PayloadT = TypeVar("PayloadT", bound=AnyPayload)

_NO_WORKER = (
    "to run jobs, drain needs arqonce[worker] and a database: make the test async and use the fixture run_job. "
    "Otherwise set the job's result in the test: enqueued.answer(CreateUser, UserView(...)); or use a worker process: "
    "start_worker"
)


class NobodyWorksError(TimeoutError):
    """The code under test waits for a result, but no worker runs."""


class RunMessage(Protocol):
    """Runs jobs: the fixture ``run_job``."""

    async def message(
        self, message: bytes, *, key: str, resources: Mapping[Resource[Any], object] | None
    ) -> JobOutcome[Any]:
        """Run the job of a message as it is stored in Redis."""
        ...

    def typed(self, outcome: JobOutcome[Any], name: str) -> JobOutcome[Any]:
        """Return the outcome of a job of this name with its result as a producer gets it."""
        ...


class EnqueuedJobs:
    """The enqueued jobs. Created by the fixture ``enqueued``."""

    def __init__(self, run_job: RunMessage | None = None) -> None:
        """Record jobs. With ``run_job``, they can also be run."""
        self._run_job = run_job
        self._jobs: dict[str, RecordedJob] = {}
        self._ends: dict[str, bytes] = {}
        self._unique: dict[str, tuple[str, float]] = {}
        self._answers: list[Callable[[RecordedJob], Answer | None]] = []
        self.needs_tables = True

    @property
    def jobs(self) -> Sequence[RecordedJob]:
        """All enqueued jobs in the order in which they were enqueued, drained or not."""
        return list(self._jobs.values())

    def assert_enqueued(self, payload: type[PayloadT], /, **fields: object) -> PayloadT:
        """Return the first payload of this kind with these field values; fail if there is none."""
        __tracebackhide__ = True
        if found := self._find(payload, fields):
            return found[0].read(payload)
        raise AssertionError(f"{written(payload, fields)} was not enqueued; {self._told()}")

    def assert_not_enqueued(self, payload: type[AnyPayload] | None = None, /, **fields: object) -> None:
        """Fail if a job of this kind with these field values was enqueued; without a kind, if any job was."""
        __tracebackhide__ = True
        if payload is None:
            if self._jobs:
                raise AssertionError(f"nothing should have been enqueued; {self._told()}")
        elif self._find(payload, fields):
            raise AssertionError(f"{written(payload, fields)} was enqueued; {self._told()}")

    def answer(self, payload: type[AnyPayload], answer: BaseModel | Exception, /, **fields: object) -> None:
        """End every job of this kind with these field values with a result or a failure, without a worker.

        This applies to jobs that wait now and to jobs enqueued later. If several answers match a job, the last one set
        applies. A job that has ended keeps its answer. The code under test gets what it would read from Redis.

        Raises:
            TypeError: the answer is not of the payload's result type, or the payload has no such field.
        """
        require_fields(payload, fields)
        given = Answer.of(payload, answer)
        self._answers.append(lambda job: given.to(job.read(payload)) if job.is_of(payload, fields) else None)
        for job in self._waiting():
            self._settle(job)

    def promises_need_no_tables(self) -> None:
        """From now on, record promises of ``enqueue_in`` without executing a statement, on any connection.

        For services that are tested on SQLite, on a database without the ledger's tables, or with a mock. A rollback of
        SQLAlchemy's sessions and connections still removes the promise; one of other connections does not. A key that
        is promised twice is a duplicate or a conflict, as in the table.
        """
        self.needs_tables = False

    async def drain(self, *, resources: Mapping[Resource[Any], object] | None = None) -> list[JobOutcome[Any]]:
        """Run all waiting jobs, and the jobs that they enqueue, in the order of their due times; return the outcomes.

        Does not wait for due times. Afterwards the jobs' handles have results. Runs all jobs before raising the first
        failure, if there is one. ``resources`` are what the jobs get for those of their registry, as in ``run_job``.

        Raises:
            RuntimeError: the test does not use ``run_job``.
        """
        __tracebackhide__ = True
        if self._run_job is None:
            raise RuntimeError(_NO_WORKER)
        outcomes = []
        while waiting := self._waiting():
            job = min(waiting, key=lambda job: job.due)
            outcome = await self._run_job.message(job.message, key=job.job_id, resources=resources)
            value = outcome.result if outcome.failure is None else outcome.failure
            end = Answer(value, is_success=outcome.failure is None, tag=outcome.tag)
            self._ends[job.job_id] = end.message(job.message, attempts=len(outcome.attempts))
            outcomes.append(self._run_job.typed(outcome, job.name))
        for outcome in outcomes:
            outcome.get()
        return outcomes

    def _find(self, payload: type[AnyPayload], fields: Mapping[str, object]) -> list[RecordedJob]:
        require_fields(payload, fields)
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

    # The following methods replace Redis and the outbox. They take and return wire data, because the clients that call
    # them may belong to another copy of this package, under another name.

    def record(self, job: RecordedJob) -> bool:
        """Record a job; return whether its id is new."""
        if job.job_id in self._jobs:
            return False
        self._jobs[job.job_id] = job
        self._settle(job)
        return True

    def record_unique(self, name: str, window_ms: int, job: RecordedJob) -> str:
        """Record a job unless an equal request was within its time; return the id of the request's job."""
        job_id = self.unique_job(name, window_ms, job.job_id)
        if job_id == job.job_id:
            self.record(job)
        return job_id

    def unique_job(self, name: str, window_ms: int, job_id: str) -> str:
        """Return the id of the job of a request: the one of an equal request within its time, or ``job_id``."""
        now = time.monotonic() * 1000
        earlier, until = self._unique.get(name, ("", 0.0))
        if until > now and earlier in self._jobs:
            return earlier
        self._unique[name] = job_id, now + window_ms
        return job_id

    def promise(self, job: RecordedJob) -> None:
        """Record a job that is new in the outbox. If its key has an earlier promise, that was rolled back."""
        if (earlier := self._jobs.get(job.job_id)) and earlier.is_promised:
            self.forget(earlier)
        self.record(job)

    def outcome_of(self, job: RecordedJob) -> str:
        """Return what the outbox would return for a promise, if it contained the recorded ones."""
        known = self._jobs.get(job.job_id)
        if known is None or not known.is_promised:
            return "new"
        is_same = (known.name, known.request_hash) == (job.name, job.request_hash)
        return "duplicate" if is_same else "conflict"

    def status_in_tables(self, job_id: str) -> str:
        """Return what ``arqonce.outbox.status_in`` would return."""
        job = self._jobs.get(job_id)
        if job_id in self._ends:
            return JobStatus.COMPLETE
        return JobStatus.PROMISED if job and job.is_promised else JobStatus.NOT_FOUND

    def forget(self, job: RecordedJob) -> None:
        """Remove a job whose transaction did not commit."""
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]
            self._ends.pop(job.job_id, None)

    def due_ms(self, job_id: str) -> float | None:
        """Return the job's score in the queue; ``None`` if there is no such job."""
        job = self._jobs.get(job_id)
        return None if job is None else job.due.timestamp() * 1000

    def end(self, job_id: str) -> bytes | None:
        """Return the result message that Redis would contain; ``None`` if the job has not ended."""
        return self._ends.get(job_id)

    def result(self, job_id: str) -> bytes:
        """Return the result message, as in Redis, of a job that was drained, answered or aborted.

        Raises:
            NobodyWorksError: the job has not ended.
        """
        if job_id in self._ends:
            return self._ends[job_id]
        raise NobodyWorksError(
            f"job {job_id} has no result: with the fixture enqueued no worker runs. Set its result before, as in "
            "enqueued.answer(CreateUser, UserView(...)); or call enqueued.drain() before this; or, if the code under "
            "test itself waits for a job that must really run, test it with a worker process: start_worker"
        )

    def abort(self, job_id: str) -> None:
        """End a waiting job with a failure, without running it, as a worker does when a producer aborts it."""
        if job_id in self._jobs and job_id not in self._ends:
            end = Answer(JobAbortedError("somebody has aborted the job"), is_success=False)
            self._ends[job_id] = end.message(self._jobs[job_id].message, attempts=0)
