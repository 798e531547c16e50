"""What jobs and their tests promise to type checkers. Never run: ``test_typing`` gives it to mypy and to pyright.

A line with ``type: ignore`` is a mistake that both must find: an ignore that is not needed is an error.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar, Self, assert_type

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.failures import JobFailedError
from arqonce.job import JobContext
from arqonce.payloads import Payload, Result
from arqonce.phases import Phases
from arqonce.resources import Resource
from arqonce.settings.worker import Settings
from arqonce.spec import JobSpec, Registry
from arqonce.testing.enqueued import EnqueuedJobs
from arqonce.testing.run_job import JobOutcome, RunJob
from arqonce.testing.worker_process import StartWorker, WorkerProcess
from jobs import CreateUser, FindUser
from jobs.payloads import UserView
from jobs.users import create_user, find_user


class Renamed(Result):
    """An answer."""

    old: str


class Rename(Payload[Renamed]):
    """A job of somebody's own."""

    job_name: ClassVar[str] = "rename"
    id: int


async def rename(_session: AsyncSession, payload: Rename) -> Renamed:
    """Do it."""
    return Renamed(old=str(payload.id))


async def rename_many(_session: AsyncSession, payloads: Sequence[Rename]) -> list[Renamed | JobFailedError]:
    """Do it for many."""
    return [Renamed(old=str(payload.id)) for payload in payloads]


async def find_many(_session: AsyncSession, _payloads: Sequence[FindUser]) -> list[Renamed | JobFailedError]:
    """Take something else."""
    return []


class Bank:
    """A service."""

    async def __aenter__(self) -> Self:
        """Open it."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""


@asynccontextmanager
async def open_bank(settings: Settings) -> AsyncGenerator[Bank, None]:
    """Open it with the worker."""
    assert settings.pool_size
    yield Bank()


@asynccontextmanager
async def open_cache() -> AsyncGenerator[dict[str, str], None]:
    """Open another thing."""
    yield {}


BANK = Resource("bank", open_bank)
CACHE = Resource("cache", open_cache)
CLASS = Resource("class", Bank)


async def rename_with_context(_session: AsyncSession, _payload: Rename, job: JobContext) -> Renamed:
    """Do it, and know of the job."""
    assert_type(job[BANK], Bank)
    assert_type(job[CACHE], dict[str, str])
    assert_type(job[CLASS], Bank)
    return Renamed(old=job.idempotency_key)


async def rename_many_with_contexts(
    _session: AsyncSession, payloads: Sequence[Rename], jobs: Sequence[JobContext]
) -> list[Renamed | JobFailedError]:
    """Do it for many."""
    return [Renamed(old=f"{payload.id} {job.id}") for payload, job in zip(payloads, jobs, strict=True)]


async def rename_with_number(_session: AsyncSession, _payload: Rename, _number: int) -> Renamed:
    """Take a third thing that is none."""
    return Renamed(old="")


async def ask(payload: Rename, job: JobContext) -> int:
    """Work slowly."""
    return payload.id + len(job.id)


async def store(_session: AsyncSession, _payload: Rename, outcome: int) -> Renamed:
    """Store the outcome."""
    return Renamed(old=str(outcome))


async def store_text(_session: AsyncSession, _payload: Rename, outcome: str) -> Renamed:
    """Store another outcome."""
    return Renamed(old=outcome)


PHASES = Phases(work=ask, store=store, deadline=timedelta(minutes=2))
assert_type(PHASES, Phases[Rename, int, Renamed])
Registry(JobSpec(Rename, PHASES))
Registry(JobSpec(Rename, Phases(work=ask, store=store)))
Phases(work=ask, store=store_text)  # type: ignore[misc]
JobSpec(FindUser, PHASES)  # type: ignore[arg-type]

REGISTRY = Registry(JobSpec(Rename, rename, batch=rename_many), resources=[BANK, CACHE])
Registry(JobSpec(Rename, rename_with_context, batch=rename_many_with_contexts))
JobSpec(Rename, rename_with_number)  # type: ignore[arg-type]
Resource("number", rename_with_number)  # type: ignore[arg-type]

JobSpec(Rename, find_user)  # type: ignore[arg-type]
JobSpec(Rename, rename, batch=find_many)  # type: ignore[arg-type]
JobSpec(Rename, rename, deadline=30)  # type: ignore[arg-type]


async def test_it(session: AsyncSession, run_job: RunJob, enqueued: EnqueuedJobs, start_worker: StartWorker) -> None:
    """Show that the payload decides on the type of what comes back."""
    assert_type(await create_user(session, CreateUser(name="Jane")), UserView)
    assert_type(await run_job(CreateUser(name="Jane"), key="k", registry=REGISTRY), UserView)
    assert_type(await run_job(Rename(id=1), resources={BANK: Bank(), CACHE: {}}), Renamed)
    assert_type(await run_job.outcome(Rename(id=1)), JobOutcome[Renamed])
    assert_type((await run_job.batch([Rename(id=1)]))[0].get(), Renamed)
    assert_type(enqueued.assert_enqueued(Rename, id=1), Rename)
    assert_type(start_worker(WORKER_REGISTRY="mine:REGISTRY"), WorkerProcess)

    await create_user(session, FindUser(id=1))  # type: ignore[arg-type]
    await run_job(1)  # type: ignore[arg-type]
    (await run_job(Rename(id=1))).name  # type: ignore[attr-defined]  # noqa: B018 - for the checker
