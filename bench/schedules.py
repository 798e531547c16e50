"""What 10,000 schedules cost a fleet of ten workers that have nothing to do: ``python -m bench.schedules``.

Ten schedulers run in one process, beside nothing else, for some seconds. Counts the statements that reach PostgreSQL
(by pg_stat_database's transactions and the driver's own count), and the CPU time of this process and of the server.
"""

import asyncio
import os
import random
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from pydantic import SecretStr
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import DatabaseSettings, JobSpec, Payload, Registry, Result, Schedule, open_database
from arqonce.embedded import open_postgres
from arqonce.ledger.schema import upgrade_schemas
from arqonce.schedules.scheduler import open_scheduler

_COUNT, _WORKERS = 10_000, 10
_SECONDS = float(sys.argv[1]) if len(sys.argv) > 1 else 40.0
_TICK = os.sysconf("SC_CLK_TCK")


class _Nothing(Payload[Result]):
    job_name: ClassVar[str] = "nothing"


async def _nothing(_session: AsyncSession, _payload: _Nothing) -> Result:
    return Result()


def _schedules() -> list[Schedule]:
    """Make schedules that are due at night, each at its own minute, in several zones."""
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo"]
    month = 1 + (time.localtime().tm_mon + 5) % 12  # half a year from now
    pick = random.Random(1)
    return [
        Schedule(f"s{number}", _Nothing(), cron=f"{pick.randrange(60)} 2 1 {month} *", zone=pick.choice(zones))
        for number in range(_COUNT)
    ]


def _server_cpu(pid: int) -> float:
    """Return the CPU seconds of a server process and of all its children, living or ended."""
    total = 0.0
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                fields = (process / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(process.name) == pid:
                total += sum(map(int, fields[11:15])) / _TICK
            elif int(fields[1]) == pid:
                total += sum(map(int, fields[11:13])) / _TICK
    return total


async def _measure(settings: DatabaseSettings) -> None:
    statements = 0

    def count(*_: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        nonlocal statements
        statements += 1

    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        registry = Registry(JobSpec(_Nothing, _nothing), schedules=_schedules())
        built = time.perf_counter()
        for number in range(_WORKERS):
            sessions = await stack.enter_async_context(open_database(settings, pool_size=1))
            event.listen(sessions.kw["bind"].sync_engine, "before_cursor_execute", count)
            await stack.enter_async_context(open_scheduler(sessions, registry, queue="arq:queue", removes=True))
            if number in {0, _WORKERS - 1}:
                print(f"worker {number + 1} is ready after {time.perf_counter() - built:.2f} s")
        print(f"{_COUNT:,} schedules are described in {built - began:.2f} s")
        async with sessions() as session:
            backend = await session.scalar(text("SELECT pg_backend_pid()"))
        pid = int(Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1])
        await asyncio.sleep(15)  # the workers' looks are no longer in step
        started, ours, theirs, before = time.perf_counter(), time.process_time(), _server_cpu(pid), statements
        async with sessions() as session:
            commits = text(
                "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            )
            transactions = await session.scalar(commits)
        await asyncio.sleep(_SECONDS)
        took = time.perf_counter() - started
        ours, theirs, done = time.process_time() - ours, _server_cpu(pid) - theirs, statements - before - 1
        async with sessions() as session:
            transactions = await session.scalar(commits) - transactions
    print(
        f"{_WORKERS} workers, {took:.0f} s: {done / took:.2f} statements/s in {transactions / took:.2f} transactions/s"
    )
    print(f"CPU of all workers {ours / took:.2%} of a core, of PostgreSQL {theirs / took:.2%}")


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory() as directory, open_postgres(Path(directory)) as server:
        settings = DatabaseSettings(url=SecretStr(server.url))
        upgrade_schemas(settings)
        asyncio.run(_measure(settings))


if __name__ == "__main__":
    main()
