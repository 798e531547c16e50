"""``python -m chaos.recovery``: kills workers that run a job, and measures when the job starts in another worker.

``--fault pg-failover`` and ``--fault valkey-failover`` fail a server over instead (``takeovers``).

A lock in PostgreSQL holds each job within its handler, and PostgreSQL lists the sessions that wait for it. So starts
are observed in the database, and the worker is the real one, unchanged.
"""

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from statistics import median, quantiles
from typing import Annotated

import asyncpg
import typer

from arqonce.client.client import JobClient
from chaos.fleet import OURS, WorkerProcess
from chaos.plan import MARKER
from chaos.servers import Servers, open_servers
from chaos.takeovers import NEEDS, measure_takeovers
from jobs import CreateUser

_GATE = """
    CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock(7, split_part(NEW.name, ' ', 2)::int); RETURN NEW; END $$;
    CREATE TRIGGER wait_at_the_gate BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION wait_at_the_gate();
"""

_WAITING = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = 7 AND objid = $1 AND NOT granted"

_LOOK = 0.005
"""Polling interval in seconds, which limits the precision of the figures."""

_LIMIT = timedelta(seconds=60)
"""Longest wait for each step, in addition to the lease."""


@dataclass(kw_only=True)
class Lane:
    """A separate queue with two workers: one that runs the job, and one that is ready to take it over."""

    number: int
    servers: Servers
    logs: Path
    lease: timedelta
    database: asyncpg.Connection
    stack: AsyncExitStack
    started: int = 0

    @property
    def queue(self) -> str:
        """The lane's queue."""
        return f"recovery:{self.number}"

    async def start_worker(self) -> WorkerProcess:
        """Start a worker and wait until it is ready."""
        self.started += 1
        environment = os.environ | self.servers.worker_environment | {
            "WORKER_QUEUE": self.queue,
            "WORKER_LEASE": f"{self.lease.total_seconds():g}s",
            "WORKER_LOG_FORMAT": "json",
            "PYTHONPATH": str(Path(__file__).parent.parent),
        }  # fmt: skip
        worker = WorkerProcess(OURS, environment, self.logs / f"worker-{self.number}-{self.started:03}.log")
        self.stack.callback(worker.end)
        await _until(lambda: _value(worker.is_ready), _LIMIT)
        return worker

    async def starts(self, job: int) -> set[int]:
        """Return the PostgreSQL sessions in which the job has started and not ended."""
        return {row["pid"] for row in await self.database.fetch(_WAITING, job)}

    async def is_settled(self, job: int) -> bool:
        """Return whether the job has a receipt."""
        statement = "SELECT EXISTS (SELECT FROM arqonce.receipts WHERE job_id = $1)"
        return bool(await self.database.fetchval(statement, f"recovery-{job}"))

    async def kill_once(self, victim: WorkerProcess, job: int, random: Random) -> tuple[float, WorkerProcess]:
        """Let ``victim`` start a job, and kill it; return after how many seconds another worker has started the job."""
        await self.database.execute("SELECT pg_advisory_lock(7, $1)", job)
        async with JobClient(self.servers.redis_url, queue=self.queue) as client:
            await client.enqueue(CreateUser(name=f"{MARKER} {job}"), key=f"recovery-{job}")
            await _until(lambda: self.starts(job), _LIMIT)
            heir = await self.start_worker()
            before = await self.starts(job)
            await asyncio.sleep(self.lease.total_seconds() / 3 * random.random())  # anywhere between two renewals
            killed = time.monotonic()
            victim.send(signal.SIGKILL)

            async def new() -> set[int]:
                return await self.starts(job) - before

            await _until(new, self.lease + _LIMIT)
            seconds = time.monotonic() - killed
        await self.database.execute("SELECT pg_advisory_unlock(7, $1)", job)
        await _until(lambda: self.is_settled(job), _LIMIT)
        return seconds, heir


async def _value(value: bool) -> bool:  # noqa: FBT001 - a value where an awaitable is needed
    return value


async def _until(look: Callable[[], Awaitable[object]], limit: timedelta) -> None:
    async with asyncio.timeout(limit.total_seconds()):
        while not await look():
            await asyncio.sleep(_LOOK)


@asynccontextmanager
async def _open_lane(number: int, servers: Servers, logs: Path, lease: timedelta) -> AsyncIterator[Lane]:
    async with AsyncExitStack() as stack:
        database = await asyncpg.connect(servers.database.url.get_secret_value())
        stack.push_async_callback(database.close)
        yield Lane(number=number, servers=servers, logs=logs, lease=lease, database=database, stack=stack)


async def measure(servers: Servers, logs: Path, *, kills: int, lanes: int, lease: timedelta) -> list[float]:
    """Return the seconds from each kill to the job's next start, and check that each job took effect once.

    Raises:
        TimeoutError: a job did not start again within its lease and a minute.
        RuntimeError: a job took effect twice, or not at all.
    """
    connection = await asyncpg.connect(servers.database.url.get_secret_value())
    await connection.execute(_GATE)
    numbers = iter(range(kills))
    samples: list[float] = []

    async def run(lane_number: int) -> None:
        random = Random(lane_number)
        async with _open_lane(lane_number, servers, logs, lease) as lane:
            worker = await lane.start_worker()
            for job in numbers:
                seconds, worker = await lane.kill_once(worker, job, random)
                samples.append(seconds)

    async with asyncio.TaskGroup() as group:
        for number in range(lanes):
            group.create_task(run(number))
    counted = await connection.fetchrow(
        "SELECT (SELECT count(*) FROM users) AS users, (SELECT count(DISTINCT name) FROM users) AS names,"
        " (SELECT count(*) FROM arqonce.receipts) AS receipts"
    )
    await connection.close()
    if tuple(counted) != (kills, kills, kills):
        raise RuntimeError(f"{kills} jobs, and of users, names and receipts there are {tuple(counted)}")
    return samples


def main(
    *,
    kills: Annotated[int, typer.Option(min=2, help="Workers to kill.")] = 100,
    lanes: Annotated[int, typer.Option(min=1, help="Queues measured at the same time.")] = 5,
    lease: Annotated[float, typer.Option(min=1, help="WORKER_LEASE in seconds.")] = 15,
    fault: Annotated[str, typer.Option(help=f"kill, {' or '.join(NEEDS)}.")] = "kill",
    times: Annotated[int, typer.Option(min=1, help="Failovers to measure.")] = 20,
) -> None:
    """Kill workers that run a job, and print the time until another worker starts the job: p50, p99, worst.

    Or fail servers over, and print the time from the takeover to the effect of a waiting job.
    """
    if fault not in {"kill", *NEEDS}:
        raise typer.BadParameter(f"there is no {fault}: name kill, {' or '.join(NEEDS)}")
    directory = Path(tempfile.mkdtemp(prefix="recovery-"))
    directory.chmod(0o711)  # so that the user that runs PostgreSQL can enter it
    logs = directory / "logs"
    logs.mkdir()
    if fault != "kill":
        with open_servers(directory, NEEDS[fault]) as servers, asyncio.Runner() as runner:
            samples = runner.run(measure_takeovers(servers, logs, fault, times=times))
        shutil.rmtree(directory)
        typer.echo(f"{fault}, {times} times: p50 {median(samples):.2f} s, worst {max(samples):.2f} s")
        return
    with open_servers(directory) as servers, asyncio.Runner() as runner:
        samples = runner.run(measure(servers, logs, kills=kills, lanes=lanes, lease=timedelta(seconds=lease)))
    shutil.rmtree(directory)
    p99 = quantiles(samples, n=100, method="inclusive")[98]
    typer.echo(
        f"lease {lease:g} s, {kills} kills: p50 {median(samples):.2f} s, p99 {p99:.2f} s, worst {max(samples):.2f} s"
    )


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
