"""Workers with one promise taken out, to show that the checks bite: ``python -m chaos.mutants NAME``."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from arq.connections import RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Function, create_worker, func
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.asyncpg_connection import LentConnection
from db.engine import open_database
from db.receipts import insert_receipts
from db.settings import DatabaseSettings
from db.tables import JobReceipt
from jobs.codec import decode, encode
from jobs.registry import REGISTRY, JobSpec
from worker import batches, dispatch
from worker.__main__ import main as run_our_worker
from worker.epoch import RedisEpoch

_LIFE = 20
"""How many receipts a worker of ``receipt-apart`` writes before it dies between a job's two commits."""


def commit_receipts_apart(*modules: ModuleType) -> None:
    """Run our worker, but with the receipt in a transaction of its own, after that of the effect.

    Each process dies once between the two, as any process may. ``modules`` are those whose jobs are so: all by default.
    """
    written = count(1)

    async def insert_apart(session: AsyncSession, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        await session.flush()
        adapted: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
        driver: LentConnection = adapted._connection  # noqa: SLF001 - of the handler's, execute refuses to commit
        await driver.control("COMMIT")
        if next(written) == _LIFE:
            os.kill(os.getpid(), signal.SIGKILL)
        await driver.control("BEGIN")
        await insert_receipts(session, *args, **kwargs)

    for module in modules or (dispatch, batches):
        vars(module)["insert_receipts"] = insert_apart
    _run_as_usual()


def _run_as_usual() -> None:
    sys.argv[1:] = ["run"]
    run_our_worker()


def blind_relay() -> None:
    """Run our worker with a relay that gives each job once: it does not notice that Redis has forgotten them.

    Without any relay, outbox jobs would not even reach Redis, which would show nothing.
    """

    async def always_the_first(_epoch: RedisEpoch) -> int:
        return 1

    setattr(RedisEpoch, RedisEpoch.read.__name__, always_the_first)
    _run_as_usual()


def run_plain_arq() -> None:
    """Run arq's own worker with its defaults and the handlers as anybody would write them: session, effect, commit.

    Even with a receipt in the transaction of the effect, arq gives a job up for good at its first exception.
    """
    settings, health = DatabaseSettings.load(), Path(os.environ["WORKER_HEALTH_FILE"])

    async def work() -> None:
        async with open_database(settings, pool_size=10) as sessions:

            async def on_startup(ctx: dict[str, Any]) -> None:
                ctx["sessions"] = sessions
                await asyncio.to_thread(health.touch)

            arguments = {
                "functions": [_naive(spec) for spec in REGISTRY],
                "redis_settings": RedisSettings.from_dsn(os.environ["REDIS_URL"]),
                "job_serializer": encode,
                "job_deserializer": decode,
                "on_startup": on_startup,
            }
            with suppress(asyncio.CancelledError):  # told to stop
                await create_worker(cast("Any", arguments)).async_run()

    asyncio.run(work())


def _naive(spec: JobSpec[Any, Any]) -> Function:
    async def run(ctx: dict[str, Any], **fields: object) -> dict[str, Any]:
        sessions: async_sessionmaker[AsyncSession] = ctx["sessions"]
        async with sessions.begin() as session:
            result = await spec.handler(session, spec.payload(**fields))
            answer: dict[str, Any] = result.model_dump(mode="json")
            facts = {"job_id": ctx["job_id"], "job_name": spec.name, "attempt": ctx["job_try"]}
            session.add(JobReceipt(**facts, request_hash=b"", result=answer))
        return answer

    return func(cast("WorkerCoroutine", run), name=spec.name)


MUTANTS: Mapping[str, Callable[[], None]] = {
    "receipt-apart": commit_receipts_apart,
    "receipts-apart": partial(commit_receipts_apart, batches),
    "relay-blind": blind_relay,
    "plain-arq": run_plain_arq,
}
"""All mutants by name."""

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
