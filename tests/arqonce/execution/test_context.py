"""A handler that asks for it learns of its own job, and gets what its worker has opened."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.failures import JobFailedError
from arqonce.job import JobContext
from arqonce.payloads import Payload, Result
from arqonce.resources import MissingResourceError, Resource
from arqonce.spec import JobSpec, Registry
from arqonce.testing.run_job import RunJob


@asynccontextmanager
async def _open_bank() -> AsyncIterator[list[str]]:
    yield []
    raise AssertionError("a test must not open it")


BANK = Resource("bank", _open_bank)


class Told(Result):
    """What the handler has seen."""

    id: str
    name: str
    attempt: int
    max_attempts: int
    queue: str
    key: str
    enqueued_ago_s: float
    left_s: float


class Ask(Payload[Told]):
    """Ask for it."""

    job_name: ClassVar[str] = "ask"
    fails_until: int = 1


def _told(job: JobContext) -> Told:
    now = datetime.now(UTC)
    return Told(
        id=job.id, name=job.name, attempt=job.attempt, max_attempts=job.max_attempts, queue=job.queue,
        key=job.idempotency_key, enqueued_ago_s=(now - job.enqueued_at).total_seconds(),
        left_s=(job.deadline - now).total_seconds(),
    )  # fmt: skip


async def _ask(_session: AsyncSession, payload: Ask, job: JobContext) -> Told:
    job[BANK].append(f"{job.attempt} {job.idempotency_key}")
    if job.attempt < payload.fails_until:
        raise ValueError("once more")
    return _told(job)


async def _ask_many(_session: AsyncSession, _payloads: Sequence[Ask], jobs: Sequence[JobContext]) -> list[Told]:
    return [_told(job) for job in jobs]


REGISTRY = Registry(
    JobSpec(Ask, _ask, batch=_ask_many, max_attempts=3, deadline=timedelta(seconds=10)), resources=[BANK]
)


async def test_a_handler_learns_of_its_job(run_job: RunJob) -> None:
    """The idempotency key is that of all attempts, and of no other job."""
    calls: list[str] = []
    other: list[str] = []

    told = await run_job(Ask(fails_until=3), key="k", registry=REGISTRY, resources={BANK: calls})
    await run_job(Ask(), registry=REGISTRY, resources={BANK: other})

    assert (told.id, told.name, told.attempt, told.max_attempts, told.queue) == ("k", "ask", 3, 3, "arq:queue")
    assert calls == [f"{attempt} {told.key}" for attempt in (1, 2, 3)]
    assert told.key not in other[0]
    assert 0 <= told.enqueued_ago_s < 5
    assert 5 < told.left_s <= 10


def test_the_key_of_a_job_never_changes() -> None:
    """A bank would charge a second time for a job that another version of this library repeats."""
    now = datetime.now(UTC)
    job = JobContext(
        id="order-17", name="charge", attempt=1, max_attempts=5, queue="arq:queue", enqueued_at=now, deadline=now
    )

    assert job.idempotency_key == "a25ee2ef-2140-5915-aed2-7d4ea8083ed5"


async def test_a_batch_handler_learns_of_each(run_job: RunJob) -> None:
    """In the order of the payloads."""
    outcomes = await run_job.batch([Ask(), Ask()], registry=REGISTRY)

    assert [outcome.get().id for outcome in outcomes] == [outcome.job_id for outcome in outcomes]


async def test_a_resource_that_nobody_gave_ends_the_job_at_once(run_job: RunJob) -> None:
    """With the cure; another attempt could not find it either."""
    outcome = await run_job.outcome(Ask(), registry=REGISTRY)

    assert len(outcome.attempts) == 1
    with pytest.raises(JobFailedError, match="resource bank, which is not open: give run_job something") as caught:
        outcome.get()
    assert isinstance(caught.value.__cause__, MissingResourceError)
