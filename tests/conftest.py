"""Real servers for all tests, and what most tests need on top of them. Tests that use none of it start no server."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import build_engine, open_database
from db.migrate import upgrade_schema
from db.settings import DatabaseSettings
from embedded import open_postgres, open_valkey
from jobs.client import JobClient, open_client
from jobs.testing.worlds import Servers
from tests.leaks import pytest_runtest_logreport, pytest_sessionfinish  # noqa: F401 - hooks of pytest
from tests.rights import Rights, all_rights, least_rights
from worker.health import read_health
from worker.settings import QueueSettings, Settings, WorkerSettings

pytest_plugins = ["jobs.testing.crash_points"]

_READY_LIMIT = 30.0
"""How long, in seconds, a worker process may take to be ready."""


_POSTGRES_SETTINGS = {"fsync": "off", "log_error_verbosity": "terse"}
"""Terse: the DETAIL of a violated constraint would repeat people's data in the server's log."""


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Run as on a clean machine, whatever DATABASE_*, REDIS_* and WORKER_* the developer has."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("DATABASE_", "REDIS_", "WORKER_", "WEB_")) or name == "SECRETS_DIR":
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start PostgreSQL for this run of tests."""
    with open_postgres(tmp_path_factory.mktemp("postgres"), settings=_POSTGRES_SETTINGS) as server:
        yield server.url


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Valkey for this run of tests."""
    with open_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def crash_points_servers(postgres_url: str, valkey_url: str) -> Servers:
    """Prove crash points on the same servers."""
    return Servers(database_url=f"{postgres_url}?sslmode=disable", redis_url=valkey_url)


@pytest.fixture(scope="session")
def database(postgres_url: str) -> DatabaseSettings:
    """Migrate the database that the tests share."""
    settings = DatabaseSettings(url=SecretStr(postgres_url))
    upgrade_schema(settings)
    return settings


@pytest.fixture(scope="session")
async def shared_sessions(database: DatabaseSettings) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open the sessionmaker that the tests share."""
    async with open_database(database, pool_size=30) as sessions:
        yield sessions


@pytest.fixture
async def session(database: DatabaseSettings) -> AsyncIterator[AsyncSession]:
    """Yield a session whose transaction is rolled back after the test, also if the test commits."""
    engine = build_engine(database, pool_size=1)
    async with engine.connect() as connection, connection.begin() as transaction:
        async with AsyncSession(connection, join_transaction_mode="create_savepoint") as session:
            yield session
        await transaction.rollback()
    await engine.dispose()


@pytest.fixture
async def sessions(
    shared_sessions: async_sessionmaker[AsyncSession],
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Yield the sessionmaker for tests that really commit; the users are removed afterwards."""
    yield shared_sessions
    async with shared_sessions.begin() as session:
        await session.execute(text("TRUNCATE users, job_receipts, dead_jobs, job_outbox RESTART IDENTITY"))


@pytest.fixture
def queue(valkey_url: str) -> QueueSettings:
    """Say where the queue is."""
    return QueueSettings(url=SecretStr(valkey_url))


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """Yield a client of an empty Valkey."""
    client = Redis.from_url(valkey_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture(scope="session")
def with_least_rights(database: DatabaseSettings, valkey_url: str) -> Rights:
    """Set up the roles and users of ``deploy/``."""
    return least_rights(database.url.get_secret_value(), valkey_url)


@pytest.fixture
def rights(request: pytest.FixtureRequest, database: DatabaseSettings, valkey_url: str) -> Rights:
    """Say how each part reaches the servers: with all rights, or parametrised with "least rights", with few."""
    if getattr(request, "param", None) == "least rights":
        found: Rights = request.getfixturevalue("with_least_rights")
        return found
    return all_rights(database.url.get_secret_value(), valkey_url)


@pytest.fixture
async def client(redis: Redis, rights: Rights) -> AsyncIterator[JobClient]:
    """Yield our client of an empty queue."""
    await redis.ping()
    async with open_client(rights.producer_redis) as client:
        yield client


@pytest.fixture
def settings(database: DatabaseSettings, queue: QueueSettings) -> Settings:
    """Return the settings of a worker on the servers of the tests."""
    return Settings(database, queue, WorkerSettings(log_format="json"))


class WorkerProcess:
    """A worker that runs as users run it: a process with an environment and a log."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path, health: Path) -> None:
        self.process = process
        self.health = health
        self._log = log

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return self._log.read_text()

    def stop(self, timeout: float = 30.0) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.terminate()
        return self.process.wait(timeout)


class StartWorker(Protocol):
    """Starts a worker process and waits until it is ready; keyword arguments are environment variables."""

    def __call__(self, *command: str, **environment: str) -> WorkerProcess:
        """Start one; the command is ours unless another is given."""
        ...


@pytest.fixture
def environment(rights: Rights) -> dict[str, str]:
    """Return the environment of a process that uses the servers of the tests."""
    return os.environ | {
        "DATABASE_URL": rights.database,
        "REDIS_URL": rights.redis,
        "WORKER_LOG_FORMAT": "json",
        "PYTHONPATH": str(Path(__file__).parent.parent),
    }


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path, redis: Redis) -> Iterator[StartWorker]:
    """Yield a function that starts worker processes; they are stopped after the test."""
    assert redis is not None  # the queue is empty before a worker starts
    with ExitStack() as stack:

        def start(*command: str, **variables: str) -> WorkerProcess:
            name = uuid4().hex
            health, log = tmp_path / f"{name}.health", tmp_path / f"{name}.log"
            process = subprocess.Popen(
                command or (sys.executable, "-m", "worker", "run"),
                env=environment | {"WORKER_HEALTH_FILE": str(health)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context(log.open("wb")),
                stderr=subprocess.STDOUT,
            )
            stack.callback(_end, process)
            wait_until(lambda: process.poll() is not None or not read_health(health), _READY_LIMIT)
            worker = WorkerProcess(process, log, health)
            assert process.poll() is None, worker.log
            return worker

        yield start


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def wait_until(is_so: Callable[[], bool], seconds: float) -> None:
    """Wait for a state, and fail if it does not come in time."""
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit, f"not so after {seconds} s"
        time.sleep(0.01)


async def wait_until_async(is_so: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Wait for a state that must be awaited, and fail if it does not come in time."""
    limit = time.monotonic() + seconds
    while not await is_so():
        assert time.monotonic() < limit, f"not so after {seconds} s"
        await asyncio.sleep(0.01)
