"""``python -m chaos.soak``: checks that a steady load, including careless handlers, leaks no resources of a worker.

Restarts nothing and injects no faults. Measures what a worker holds when all its jobs have ended, twice: after the
first minute (after a quarter of a shorter run), and at the end.
"""

import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from datetime import timedelta
from itertools import count
from pathlib import Path
from random import Random
from typing import Annotated

import asyncpg
import typer
from redis.asyncio import Redis

from arqonce.client.client import JobClient
from arqonce.failures import JobFailedError
from arqonce.payloads import AnyPayload
from arqonce.wire.keys import QUEUE
from chaos.careless import HABITS, Careless
from chaos.fleet import OURS, WorkerProcess
from chaos.jobs import Slow
from chaos.plan import MARKER
from chaos.servers import Servers, open_servers
from jobs.payloads import CreateUser, CreateUsers, FindUser, GetOrCreateUser, NewUser

_MAX_JOBS = 10
"""WORKER_MAX_JOBS: this many jobs must be able to have a transaction at the same time."""

_LOOK = 0.02
"""Polling interval in seconds."""

_LIMIT = timedelta(seconds=60)
"""Longest wait for the worker to start, and for its jobs to end."""

_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'soak'"
_BUSY = f"{_CONNECTIONS} AND state <> 'idle'"
_IN_TRANSACTION = f"{_CONNECTIONS} AND xact_start IS NOT NULL"


@dataclass(frozen=True, kw_only=True)
class Holdings:
    """The resources that an idle worker holds."""

    places: int
    """How many jobs can have a transaction at the same time, up to WORKER_MAX_JOBS."""
    connections: int
    busy: int
    """Connections that are not idle."""
    descriptors: int
    threads: int
    memory_mb: int
    """Resident set, in MB."""


TOLERANCES: dict[str, Callable[[int], int]] = {
    "connections": lambda before: before + 3,
    "busy": lambda before: before,
    "descriptors": lambda before: before + 6,
    "threads": lambda before: before + 2,
    "memory_mb": lambda before: round(before * 1.2) + 10,
}
"""The most that may be held at the end, by what was held before. What careless jobs have left open stays open."""


def grown(before: Holdings, after: Holdings) -> list[str]:
    """Return the names of resources that have grown too much, and ``places`` if the worker has lost some."""
    too_many = [name for name, most in TOLERANCES.items() if getattr(after, name) > most(getattr(before, name))]
    return [*too_many, *(["places"] if after.places < before.places or after.places < _MAX_JOBS else [])]


@dataclass(kw_only=True)
class Soak:
    """One worker under load."""

    client: JobClient
    redis: Redis
    database: asyncpg.Connection
    worker: WorkerProcess
    random: Random
    _numbers: "count[int]"
    submitted: int = 0

    async def load(self, seconds: float, rate: float) -> None:
        """Submit ``rate`` jobs per second for ``seconds``."""
        started = time.monotonic()
        for number in range(round(seconds * rate)):
            await asyncio.sleep(started + number / rate - time.monotonic())
            await self.client.enqueue(self._payload(), key=f"soak-{next(self._numbers)}")
            self.submitted += 1

    async def look(self) -> Holdings:
        """Wait until all jobs have ended; return what the worker holds."""
        async with asyncio.timeout(_LIMIT.total_seconds()):
            while await self.redis.zcard(QUEUE):
                await asyncio.sleep(_LOOK)
        places = await self._places()
        await asyncio.sleep(1)  # tasks that jobs have left behind end a moment later
        process = Path(f"/proc/{self.worker.process.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Holdings(
            places=places,
            connections=await self.database.fetchval(_CONNECTIONS),
            busy=await self.database.fetchval(_BUSY),
            descriptors=len(list((process / "fd").iterdir())),
            threads=int(status["Threads"]),
            memory_mb=int(status["VmRSS"].split()[0]) // 1000,
        )

    async def _places(self) -> int:
        """Run WORKER_MAX_JOBS slow jobs; return how many of them have a transaction at the same time."""
        payloads = [Slow(name=self._name(), phase="before the commit") for _ in range(_MAX_JOBS)]
        handles = await self.client.enqueue_many(payloads)
        waiting = asyncio.gather(*(handle.result(timeout=_LIMIT) for handle in handles), return_exceptions=True)
        most = 0
        while not waiting.done():
            most = max(most, await self.database.fetchval(_IN_TRANSACTION))
            await asyncio.sleep(_LOOK)
        failures = [answer for answer in await waiting if isinstance(answer, JobFailedError | TimeoutError)]
        return min(most, _MAX_JOBS) - len(failures)

    def _payload(self) -> AnyPayload:
        random = self.random
        if random.random() < 0.05:
            return Careless(what=random.choice(HABITS), name=self._name())
        email = f"{random.randrange(1000)}@{MARKER.lower()}.example"
        makers: list[Callable[[], AnyPayload]] = [
            lambda: CreateUser(name=self._name()),
            lambda: GetOrCreateUser(name=self._name(), email=email),
            lambda: FindUser(email=email),
            lambda: CreateUsers(users=[NewUser(name=self._name()) for _ in range(5)]),
        ]
        return random.choice(makers)()

    def _name(self) -> str:
        return f"{MARKER} soak.{next(self._numbers)}"


@asynccontextmanager
async def _open_soak(servers: Servers, logs: Path, seed: int) -> AsyncIterator[Soak]:
    environment = os.environ | servers.worker_environment | {
        "WORKER_REGISTRY": "chaos.jobs:REGISTRY,chaos.careless:REGISTRY",
        "WORKER_MAX_JOBS": str(_MAX_JOBS),
        "WORKER_LOG_FORMAT": "json",
        "DATABASE_APPLICATION_NAME": "soak",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }  # fmt: skip
    worker = WorkerProcess(OURS, environment, logs / "worker.log")
    database = await asyncpg.connect(servers.database.url.get_secret_value())
    try:
        async with asyncio.timeout(_LIMIT.total_seconds()):
            while not worker.is_ready:
                await asyncio.sleep(_LOOK)
        async with JobClient(servers.redis_url) as client, Redis.from_url(servers.redis_url) as redis:
            yield Soak(
                client=client,
                redis=redis,
                database=database,
                worker=worker,
                random=Random(seed),
                _numbers=count(),
            )
    finally:
        worker.end()
        await database.close()


async def soak(servers: Servers, logs: Path, *, length: timedelta, rate: float, seed: int) -> tuple[Holdings, Holdings]:
    """Run the load on a worker; return what it held early and at the end."""
    early = min(60.0, length.total_seconds() / 4)
    async with _open_soak(servers, logs, seed) as running:
        await running.load(early, rate)
        before = await running.look()
        await running.load(length.total_seconds() - early, rate)
        after = await running.look()
        typer.echo(f"{running.submitted} jobs in {length.total_seconds() / 60:g} minutes", err=True)
    return before, after


def main(
    *,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long the load lasts.")] = 20,
    rate: Annotated[float, typer.Option(min=1, help="Jobs per second.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of all random numbers.")] = 1,
) -> None:
    """Load a worker, print what it holds early and at the end, and exit with 1 if it holds too much."""
    if sys.platform != "linux":
        raise typer.BadParameter("what a process holds is read from /proc, which only Linux has")
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    directory.chmod(0o711)  # so that the user that runs PostgreSQL can enter it
    logs = directory / "logs"
    logs.mkdir()
    with open_servers(directory) as servers, asyncio.Runner() as runner:
        before, after = runner.run(soak(servers, logs, length=timedelta(minutes=minutes), rate=rate, seed=seed))
    wrong = grown(before, after)
    typer.echo(f"{'':<12} {'early':>6} {'end':>6} {'most':>6}")
    for name in (field.name for field in fields(Holdings)):
        most = TOLERANCES[name](getattr(before, name)) if name in TOLERANCES else ""
        mark = "  too many" if name in wrong and name != "places" else "  lost" if name in wrong else ""
        typer.echo(f"{name:<12} {getattr(before, name):>6} {getattr(after, name):>6} {most:>6}{mark}")
    if wrong:
        typer.echo(f"the logs are in {logs}", err=True)
        raise typer.Exit(1)
    shutil.rmtree(directory)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app()
