"""Processes that stand still for longer than every time limit, with jobs in each phase. With real workers."""

import asyncio
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobClient
from arqonce.client.client import JobHandle
from arqonce.outbox import enqueue_in
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec, Registry
from db.users import insert_user
from tests.conftest import StartWorker, WorkerProcess, wait_until_async
from tests.faults.observe import Sessions, letters, users_by_name, wait_for_empty_queue

_DEADLINE = timedelta(seconds=3)

_STANDSTILL = timedelta(seconds=10)
"""Longer than the deadline, the 5 s that an outer timer would allow beyond it, and a lease."""

_SOON = timedelta(seconds=30)


class Stored(Result):
    """The user's name."""

    name: str


class Linger(Payload[Stored]):
    """Store a user, and stay in a phase until the test says that the standstill is over."""

    job_name: ClassVar[str] = "linger"
    name: str
    phase: str
    folder: str


class LingerTogether(Linger):
    """The same, in a batch."""

    job_name: ClassVar[str] = "linger_together"


async def linger(session: AsyncSession, payload: Linger) -> Stored:
    """Store the user."""
    await _stay(payload, "before")
    await insert_user(session, payload.name)
    await _stay(payload, "between")
    await _stay(payload, "told", until="redis-is-deaf")
    _arrive(payload, "commit")
    return Stored(name=payload.name)


async def linger_batch(session: AsyncSession, payloads: Sequence[Linger]) -> list[Stored]:
    """Store all users."""
    return [await linger(session, payload) for payload in payloads]


async def _stay(payload: Linger, phase: str, *, until: str | None = None) -> None:
    """Stay until a file is there; without one, until the attempt's deadline, unless the standstill is over."""
    if payload.phase == phase and not Path(payload.folder, "over").exists():  # noqa: ASYNC240 - a look at a local file
        _arrive(payload, phase)
        while until is None or not Path(payload.folder, until).exists():  # noqa: ASYNC240
            await asyncio.sleep(0.02 if until else 3600)


def _arrive(payload: Linger, phase: str) -> None:
    if payload.phase == phase:
        Path(payload.folder, f"at-{payload.name}").touch()


REGISTRY = Registry(
    JobSpec(Linger, linger, deadline=_DEADLINE, max_attempts=50),
    JobSpec(LingerTogether, linger, batch=linger_batch, deadline=_DEADLINE, max_attempts=50),
)


async def test_no_job_ends_by_a_standstill_of_one_worker_or_of_all(
    start_worker: StartWorker, redis: Redis, sessions: Sessions, worker_environment: dict[str, str], tmp_path: Path
) -> None:
    """Every time limit has expired when a stopped process goes on: each job must still end by its receipt."""
    url = worker_environment["REDIS_URL"]
    names = {
        f"{queue} {kind} {phase}": (queue, kind, phase)
        for queue in ("one", "all")
        for kind in ("single", "batch", "promised")
        for phase in ("before", "between", "commit", "told")
    }
    async with AsyncExitStack() as stack:
        clients = {queue: await stack.enter_async_context(JobClient(url, queue=queue)) for queue in ("one", "all")}
        workers = {queue: [_start(start_worker, queue) for _ in range(2)] for queue in clients}
        handles = [
            await _enqueue(clients[queue], sessions, queue, kind, Linger(name=name, phase=phase, folder=str(tmp_path)))
            for name, (queue, kind, phase) in names.items()
        ]
        await _wait_for_phases(tmp_path, [name for name, (_, _, phase) in names.items() if phase != "commit"])
        await redis.client_pause(3000, all=False)  # no job that ends from here on is told of
        (tmp_path / "redis-is-deaf").touch()
        async with sessions() as blocker:
            await blocker.execute(text("LOCK TABLE arqonce.receipts IN SHARE MODE"))  # COMMIT waits behind the receipt
            with _stopped([workers["one"][0], *workers["all"]]):
                await asyncio.sleep(_STANDSTILL.total_seconds() / 2)
                await blocker.rollback()
                await asyncio.sleep(_STANDSTILL.total_seconds() / 2)
                (tmp_path / "over").touch()

        answers = await asyncio.gather(*(handle.result(timeout=_SOON) for handle in handles), return_exceptions=True)

        assert [answer.name if isinstance(answer, Stored) else repr(answer) for answer in answers] == list(names)
        for queue in clients:
            await wait_for_empty_queue(redis, queue=queue)
    assert await users_by_name(sessions) == dict.fromkeys(names, 1)
    assert (await letters(sessions), await _receipts(sessions), await _owed(sessions)) == ({}, len(names), 0)


def _start(start_worker: StartWorker, queue: str) -> WorkerProcess:
    return start_worker(
        WORKER_QUEUE=queue,
        WORKER_REGISTRY=f"{__name__}:REGISTRY",
        WORKER_LEASE="1s",
        WORKER_MAX_JOBS="20",
        DATABASE_STATEMENT_TIMEOUT="20s",
        DATABASE_COMMAND_TIMEOUT="25s",
    )


async def _enqueue(client: JobClient, sessions: Sessions, queue: str, kind: str, payload: Linger) -> JobHandle[Stored]:
    if kind == "single":
        return await client.enqueue(payload)
    if kind == "batch":
        return await client.enqueue(LingerTogether(**payload.model_dump()))
    async with sessions.begin() as session:
        promised = await enqueue_in(session, payload, queue=queue)
    return client.handle(promised)


async def _wait_for_phases(folder: Path, names: Sequence[str]) -> None:
    async def are_there() -> bool:
        return all((folder / f"at-{name}").exists() for name in names)

    await wait_until_async(are_there, 20)


@contextmanager
def _stopped(workers: Sequence[WorkerProcess]) -> Iterator[None]:
    for worker in workers:
        os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for worker in workers:
            os.kill(worker.process.pid, signal.SIGCONT)


async def _receipts(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM arqonce.receipts WHERE result IS NOT NULL")) or 0


async def _owed(sessions: Sessions) -> int:
    async with sessions() as session:
        return await session.scalar(text("SELECT count(*) FROM arqonce.outbox")) or 0
