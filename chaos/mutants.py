"""Workers that break one promise each, to show that the checks detect it: ``python -m chaos.mutants NAME``."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from arq.connections import RedisSettings
from arq.typing import WorkerCoroutine
from arq.worker import Function, create_worker, func
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database import pipelining
from arqonce.database.asyncpg_connection import LentConnection
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.execution import attempt as dispatch
from arqonce.execution import batch as batches
from arqonce.execution import gate, letters, record
from arqonce.execution.dead_letters import write_letter
from arqonce.execution.patience import Patience
from arqonce.execution.work import RegistryJob
from arqonce.failures import AttemptsExhaustedError
from arqonce.ledger.dead_jobs import DeadLetter
from arqonce.ledger.receipts import Receipt, insert_receipts
from arqonce.ledger.tables import JobReceipt
from arqonce.relay.epoch import RedisEpochs
from arqonce.spec import JobSpec
from arqonce.wire.codec import decode, encode
from arqonce.work import Outcome
from chaos.jobs import DEADLINE
from jobs.registry import REGISTRY
from worker.__main__ import main as run_our_worker

_LIFE = 20
"""A worker of ``receipt-apart`` dies between the two commits of its receipt with this number."""


_GUARD = DEADLINE + timedelta(seconds=5)
"""The second time limit of ``guard-is-final``: as much longer than a slow job's deadline as arq's time limit is."""


def commit_receipts_apart(*modules: ModuleType) -> None:
    """Run our worker, but commit the receipt in a separate transaction, after that of the effect.

    Each process dies once between the two, as any process may. ``modules`` are the patched modules, by default both.
    """
    written = count(1)

    async def insert_apart(session: AsyncSession, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - passed on
        await session.flush()
        adapted: Any = (await (await session.connection()).get_raw_connection()).dbapi_connection
        driver: LentConnection = adapted._connection  # noqa: SLF001 - its execute would refuse to commit
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
    """Run our worker with a relay that dispatches each job once, because it does not detect that Redis has lost jobs.

    Without any relay, outbox jobs would not even reach Redis, which would prove nothing.
    """

    async def always_the_first(epochs: RedisEpochs) -> Mapping[str, int]:
        return dict.fromkeys(epochs.queues, 1)

    setattr(RedisEpochs, RedisEpochs.read.__name__, always_the_first)
    _run_as_usual()


def end_by_guard() -> None:
    """Run our worker with a second time limit around each attempt, whose expiry ends the job, as arq's does.

    In a worker that was stopped, both limits have expired at once; here the outer one decides.
    """
    run = RegistryJob.run

    async def run_guarded(job: RegistryJob) -> Outcome:
        started = time.monotonic()
        outcome = await run(job)
        is_late = time.monotonic() - started > _GUARD.total_seconds()
        return job.ended(TimeoutError()) if is_late else outcome

    setattr(RegistryJob, "run", run_guarded)  # noqa: B010 - a method, patched here
    _run_as_usual()


def keep_no_letters() -> None:
    """Run our worker without dead letters: producers get failures that are not in the ledger."""

    async def forget(*_args: object, **_options: object) -> bool:
        return True

    async def forget_all(_sessions: object, some: Sequence[DeadLetter], **_options: object) -> set[str]:
        return {letter.job_id for letter in some}

    vars(letters).update(bury=forget, bury_together=forget_all)
    _run_as_usual()


def write_receipts_of_effects_only() -> None:
    """Run our worker without receipts for jobs that had nothing to write."""

    async def insert_some(session: AsyncSession, name: str, receipts: Sequence[Receipt], **options: Any) -> None:  # noqa: ANN401 - passed on
        new = [receipt for receipt in receipts if '"is_new":false' not in (receipt.result_json or "")]
        if new:
            await insert_receipts(session, name, new, **options)

    for module in (dispatch, batches):
        vars(module)["insert_receipts"] = insert_some
    _run_as_usual()


def blame_crashes() -> None:
    """Run our worker with dead letters that all give crashed workers as the reason."""

    def write_false_letter(_failure: Exception, *args: Any, **facts: Any) -> object:  # noqa: ANN401 - passed on
        return write_letter(AttemptsExhaustedError("its worker died or was killed each time"), *args, **facts)

    vars(record)["write_letter"] = write_false_letter
    _run_as_usual()


def open_the_gate() -> None:
    """Run our worker with a gate that never closes, and no other excuse, so that outages count as failed attempts."""

    async def check(_gate: gate.DatabaseGate) -> bool:
        return True

    setattr(gate.DatabaseGate, gate.DatabaseGate.check.__name__, check)
    setattr(Patience, Patience.lasts.__name__, lambda *_: False)
    _run_as_usual()


def keep_demoted_connections() -> None:
    """Run our worker so that it keeps its connections when their server is demoted."""
    for module in [module for name, module in sys.modules.items() if name.startswith("arqonce.")]:
        for question in {"refuses_writes", "leads_elsewhere", "may_be_asked"} & vars(module).keys():
            vars(module)[question] = lambda _answer: False
    _run_as_usual()


def leave_connections_as_they_are() -> None:
    """Run our worker without cleaning a connection's session between jobs."""
    vars(pipelining).update(_CLEANING=b"", _BEFORE_LAST=b"", _RESET=b"")
    _run_as_usual()


def run_plain_arq() -> None:
    """Run arq's own worker with its defaults and handlers as usually written: session, effect, commit.

    Even with a receipt in the transaction of the effect, arq fails a job for good at its first exception.
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
            result = await cast("Any", spec.handler)(session, spec.payload(**fields))
            answer: dict[str, Any] = result.model_dump(mode="json")
            facts = {"job_id": ctx["job_id"], "job_name": spec.name, "attempt": ctx["job_try"]}
            session.add(JobReceipt(**facts, request_hash=b"", result=answer))
        return answer

    return func(cast("WorkerCoroutine", run), name=spec.name)


MUTANTS: Mapping[str, Callable[[], None]] = {
    "receipt-apart": commit_receipts_apart,
    "receipts-apart": partial(commit_receipts_apart, batches),
    "relay-blind": blind_relay,
    "guard-is-final": end_by_guard,
    "no-letters": keep_no_letters,
    "receipts-of-effects-only": write_receipts_of_effects_only,
    "blames-crashes": blame_crashes,
    "gate-always-open": open_the_gate,
    "keeps-demoted-connections": keep_demoted_connections,
    "unclean-connections": leave_connections_as_they_are,
    "plain-arq": run_plain_arq,
}
"""All mutants by name."""

if __name__ == "__main__":
    MUTANTS[sys.argv[1]]()
