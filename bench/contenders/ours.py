"""This project through its public interface, with receipts.

Settings: defaults (10 runs at once, each of one job or of a batch), log level warning; 20 runs for the ordinary handler
and 200 for no-ops. The variable ``WORKER_MAX_JOBS`` overrides these. ``create_user`` and ``find_user`` are the
product's own jobs. Variants: ``no-receipts`` writes none; ``metrics`` has a port of operations; ``session`` runs an
ordinary handler, which adds one user to its session; ``shared`` the same, in transactions that jobs share; ``urgent``
serves the queue ``urgent`` before the other one, and its producer enqueues there; ``queues`` serves three queues of
which the jobs are in the second; ``limited`` is a kind of which 1,000 may run at once. ``no_op`` is a plain arq
function in our worker class.
"""

import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from arq import func
from arq.connections import ArqRedis
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.arq.worker import Worker
from arqonce.client.client import JobClient, JobHandle
from arqonce.connection.redis import build_redis
from arqonce.database.settings import DatabaseSettings
from arqonce.limits import Limit
from arqonce.payloads import Payload, Result
from arqonce.process.logs import set_up_logging
from arqonce.process.worker import calm_garbage_collector, run_worker
from arqonce.queues import ServedQueues
from arqonce.settings.operations import OperationsSettings
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from arqonce.spec import JobSpec, Registry
from arqonce.wire.codec import decode, encode
from arqonce.wire.keys import EXPIRY, JOB_KEY, QUEUE, new_job_id, now_ms, to_ms
from bench.bodies import Counter
from bench.no_receipts import without_receipts
from bench.target import Job, Target, run
from db.tables import SCHEMA, User
from jobs.payloads import CreateUser, FindUser
from jobs.registry import REGISTRY
from jobs.users import create_user, create_user_batch
from worker.application import APPLICATION

_MAX_JOBS = {"session": 20, "no_op": 200}
"""Runs at once, by variant or kind, if the default is not the best number."""

_URGENT = "urgent"
"""A variant and its queue."""

_PIPELINED = 1000
"""Jobs of plain arq that one round trip writes into Redis."""


class Added(Result):
    """The id of the stored user."""

    id: int


class AddUser(Payload[Added]):
    """Store one user in the ordinary way."""

    job_name: ClassVar[str] = "add_user"
    name: str
    email: str


async def add_user(session: AsyncSession, payload: AddUser) -> Added:
    """Do the same as the other contenders' coroutine."""
    user = User(name=payload.name, email=payload.email)
    session.add(user)
    await session.flush()
    return Added(id=user.id)


_ORDINARY = {
    "session": Registry(JobSpec(AddUser, add_user)),
    "shared": Registry(JobSpec(AddUser, add_user, shares_transaction=True)),
}
"""The ordinary handler, by variant."""

_LIMITED = Registry(
    JobSpec(CreateUser, create_user, batch=create_user_batch, limits=[Limit(concurrency=1000)]), schema=SCHEMA
)
"""As many at once as are claimed at most: each job takes a permit, and none waits for one."""

_QUEUES = {_URGENT: (_URGENT, QUEUE), "queues": (_URGENT, QUEUE, "low")}
"""The queues of a variant, if it serves several."""


def work(target: Target, variant: str) -> None:
    """Work until killed."""
    if target.kind == "no_op":
        set_up_logging(WorkerSettings(log_level="warning"), None)  # this and the next as in all our worker processes
        calm_garbage_collector()
        run(_count(target))
    elif variant == "no-receipts":
        with without_receipts():
            run_worker(_settings(target, variant), APPLICATION)
    else:
        run_worker(
            _settings(target, variant),
            replace(APPLICATION, registry=_LIMITED if variant == "limited" else _ORDINARY.get(variant, REGISTRY)),
        )


def _settings(target: Target, variant: str) -> Settings:
    return Settings(
        DatabaseSettings(url=SecretStr(target.database_url)),
        QueueSettings(url=SecretStr(target.redis_url)),
        WorkerSettings(
            queue=ServedQueues(_QUEUES.get(variant, (QUEUE,))),
            max_jobs=_max_jobs(target, variant),
            log_level="warning",
            log_format="json",
        ),
        OperationsSettings(port=0) if variant == "metrics" else None,
    )


def _max_jobs(target: Target, variant: str) -> int:
    best = _MAX_JOBS.get(variant) or _MAX_JOBS.get(target.kind) or WorkerSettings().max_jobs
    return target.max_jobs or int(os.environ.get("WORKER_MAX_JOBS", best))


async def _count(target: Target) -> None:
    counter = Counter(Path(target.counter), target.process)

    async def no_op(_ctx: dict[str, Any]) -> None:
        counter.add()

    redis = build_redis(target.redis_url, ArqRedis, max_connections=20)
    redis.job_serializer, redis.job_deserializer = encode, decode
    worker = Worker(
        functions=[func(no_op, name="no_op")],  # type: ignore[arg-type] # arq's own protocol wants a name
        redis_pool=redis,
        max_jobs=_max_jobs(target, ""),
        job_serializer=encode,
        job_deserializer=decode,
        poll_delay=0.05,
        handle_signals=False,
        log_results=False,
    )
    await worker.async_run()


class _Producer:
    def __init__(self, client: JobClient, redis: ArqRedis, variant: str) -> None:
        self._client, self._redis = client, redis
        self._create: type[AddUser | CreateUser] = AddUser if variant in _ORDINARY else CreateUser

    async def fill(self, jobs: list[Job]) -> None:
        if jobs[0].kind == "no_op":
            await self._fill_raw(len(jobs))
        else:
            await self._client.enqueue_many([self._payload(job) for job in jobs])

    async def _fill_raw(self, count: int) -> None:
        message = encode({"t": None, "f": "no_op", "a": [], "k": {}, "et": now_ms()})
        for at in range(0, count, _PIPELINED):
            async with self._redis.pipeline(transaction=False) as pipe:
                for _ in range(min(_PIPELINED, count - at)):
                    job_id = new_job_id(None)
                    pipe.psetex(JOB_KEY + job_id, to_ms(EXPIRY), message)
                    pipe.zadd(QUEUE, {job_id: now_ms()})
                await pipe.execute()

    async def enqueue(self, job: Job) -> JobHandle[Any]:
        return await self._client.enqueue(self._payload(job))

    async def result(self, handle: JobHandle[Any]) -> None:
        await handle.result(timeout=None)

    def _payload(self, job: Job) -> Payload[Any]:
        if job.kind == "find_user":
            return FindUser(**job.arguments)
        return self._create(**job.arguments)


@asynccontextmanager
async def open_producer(target: Target, variant: str) -> AsyncIterator[_Producer]:
    """Yield our client."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(build_redis(target.redis_url, ArqRedis, max_connections=5))
        queue = _URGENT if variant == _URGENT else QUEUE
        yield _Producer(await stack.enter_async_context(JobClient(target.redis_url, queue=queue)), redis, variant)
