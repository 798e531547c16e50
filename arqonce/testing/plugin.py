"""pytest plugin: fixtures for tests of jobs, of code that enqueues, and of whole workers.

Each fixture imports what it needs when it is first used, so that a project that uses none pays nothing, and does not
notice which versions of other plugins are too old for us.
"""

import contextlib
import importlib.util
import os
import sys
import types
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from arqonce.database.settings import DatabaseSettings
    from arqonce.spec import Registry
    from arqonce.testing.crash.crash_points import CrashPoints
    from arqonce.testing.crash.worlds import Servers
    from arqonce.testing.databases import Databases, Migrate
    from arqonce.testing.enqueued import EnqueuedJobs
    from arqonce.testing.programs import Programs
    from arqonce.testing.run_job import RunJob
    from arqonce.testing.transaction import Transaction
    from arqonce.testing.worker_process import StartWorker

_SETTINGS = {"fsync": "off", "log_error_verbosity": "terse"}
"""Of PostgreSQL. Terse, because the DETAIL of a constraint violation would write personal data into the log."""

_MIN_ASYNCIO = (1, 1)
"""The first pytest-asyncio that takes an async fixture while tests run; the extra ``testing`` asks for it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options with which a project names its registry and its command in pytest's settings."""
    parser.addini(
        "arqonce_registry", "The registries whose jobs are tested: module:NAME, separated by commas", default=""
    )
    parser.addini(
        "arqonce_module", "The module whose command runs the workers of tests: python -m NAME run", default="arqonce"
    )


def _has_asyncio(config: pytest.Config) -> bool:
    return any(map(config.pluginmanager.hasplugin, ("asyncio", "pytest_asyncio", "pytest_asyncio.plugin")))


def _transaction_in(way: str, config: pytest.Config) -> str:
    """Return the name of the async fixture for tests that are awaited this way; register it at its first use."""
    name = f"_jobs_transaction_{way}"
    if not config.pluginmanager.has_plugin(name):
        module = types.ModuleType(name)
        vars(module)[name] = _decorator(way)(_new_transaction(), name=name)
        config.pluginmanager.register(module, name)
    return name


def _decorator(way: str) -> "Callable[..., Any]":
    if way == "anyio":
        return pytest.fixture
    import pytest_asyncio  # loaded by pytest, if it is there

    return partial(pytest_asyncio.fixture, loop_scope=way)


def _new_transaction() -> "Callable[[DatabaseSettings], AsyncIterator[Transaction]]":
    async def transaction(jobs_database: "DatabaseSettings") -> "AsyncIterator[Transaction]":
        from arqonce.testing.transaction import open_transaction_to_roll_back

        async with open_transaction_to_roll_back(jobs_database) as opened:
            yield opened

    return transaction


@pytest.fixture(scope="session")
def jobs_postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start PostgreSQL for this run, one per process of pytest-xdist. Override it to use your own server."""
    _require_workers()
    from arqonce.embedded import open_postgres

    with open_postgres(tmp_path_factory.mktemp("postgres"), settings=_SETTINGS) as server:
        yield f"{server.url}?sslmode=disable"


@pytest.fixture(scope="session")
def jobs_redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Valkey for this run, one per process of pytest-xdist. Override it to use your own server."""
    from arqonce.embedded import open_valkey

    with open_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def jobs_migrate(jobs_registry: "Registry") -> "Migrate":
    """Return a function that creates the tables of the ledger and of the registry in an empty database."""
    from arqonce.ledger.schema import upgrade_schemas

    return lambda settings: upgrade_schemas(settings, jobs_registry.schemas)


@pytest.fixture(scope="session")
def jobs_databases(jobs_postgres_url: str, jobs_migrate: "Migrate") -> "Iterator[Databases]":
    """Yield the factory of migrated databases: ``with jobs_databases.copy() as settings``."""
    from arqonce.testing.databases import Databases

    databases = Databases(jobs_postgres_url, jobs_migrate)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def jobs_database(jobs_databases: "Databases") -> "Iterator[DatabaseSettings]":
    """Yield the settings of the shared database, in which all tests roll back."""
    with jobs_databases.copy() as settings:
        yield settings


@pytest.fixture
def own_database(jobs_databases: "Databases") -> "Iterator[DatabaseSettings]":
    """Yield the settings of a database for this test alone, which may commit."""
    with jobs_databases.copy() as settings:
        yield settings


@pytest.fixture
def jobs_transaction(request: pytest.FixtureRequest) -> "Iterator[Transaction]":
    """Yield the transaction of this test, in the event loop of this test."""
    transaction: Transaction = request.getfixturevalue(_transaction_in(_way(request), request.config))
    failed = request.session.testsfailed
    yield transaction
    if transaction.commits and request.session.testsfailed == failed:  # the error was caught
        pytest.fail(str(transaction.commits[0]), pytrace=False)


def _way(request: pytest.FixtureRequest) -> str:
    """Return how this test is awaited: ``anyio``, or the loop scope of pytest-asyncio."""
    marker = request.node.get_closest_marker("asyncio") if _has_asyncio(request.config) else None
    if "anyio_backend" in request.fixturenames:
        if marker is not None:
            _refuse(
                "both anyio and pytest-asyncio would run this test: set asyncio_mode = strict in pytest's settings "
                "(or -p no:asyncio), or remove the mark anyio"
            )
        _require_asyncio(request.getfixturevalue("anyio_backend"))
        return "anyio"
    if marker is None:
        _refuse(
            "this test is not run in an event loop, and its fixtures need one: write async def, and mark it "
            "@pytest.mark.asyncio (or set asyncio_mode = auto; pip install pytest-asyncio), or @pytest.mark.anyio"
        )
    _require_recent_asyncio()
    scope: str = (
        marker.kwargs.get("loop_scope")
        or marker.kwargs.get("scope")
        or request.config.getini("asyncio_default_test_loop_scope")
    )
    return scope


def _require_recent_asyncio() -> None:
    import pytest_asyncio  # loaded by pytest, which has run the test's mark

    version = pytest_asyncio.__version__
    if tuple(map(int, version.split(".")[:2])) < _MIN_ASYNCIO:
        least = ".".join(map(str, _MIN_ASYNCIO))
        _refuse(
            f"this fixture needs pytest-asyncio {least} or later, and {version} is installed: "
            f"pip install 'pytest-asyncio>={least}', or run the test by anyio"
        )


def _require_asyncio(backend: Any) -> None:  # noqa: ANN401 - anyio's: a name, or a name and options
    name = backend if isinstance(backend, str) else backend[0]
    if name != "asyncio":
        _refuse(
            f"SQLAlchemy and asyncpg run on asyncio, and anyio runs this test on {name}: define in your conftest.py a "
            'fixture anyio_backend that returns "asyncio"'
        )


def _require_workers() -> None:
    if importlib.util.find_spec("arq") is None:
        _refuse("this fixture needs the packages that run jobs: pip install 'arqonce[worker,embedded]'")


def _refuse(cure: str) -> NoReturn:
    pytest.fail(cure, pytrace=False)


@pytest.fixture
def session(jobs_transaction: "Transaction") -> "AsyncSession":
    """Return a session whose transaction is rolled back after the test. It refuses to commit."""
    return jobs_transaction.session


@pytest.fixture
def jobs_sessions(jobs_transaction: "Transaction") -> "async_sessionmaker[AsyncSession]":
    """Return a sessionmaker for code that commits. ``session`` sees its commits; the end of the test undoes them."""
    return jobs_transaction.sessions


@pytest.fixture(scope="session")
def jobs_registry(pytestconfig: pytest.Config) -> "Registry":
    """Return the registry for ``run_job`` and ``crash_points``, named by ``arqonce_registry`` in pytest's settings."""
    _require_workers()
    from arqonce.registries import load_registry

    named = pytestconfig.getini("arqonce_registry")
    if not named:
        _refuse(
            'name the registry of the jobs: arqonce_registry = "shop.jobs:REGISTRY" in [tool.pytest.ini_options], or '
            "define a fixture jobs_registry in conftest.py"
        )
    return load_registry(named)


@pytest.fixture
def run_job(jobs_transaction: "Transaction", jobs_registry: "Registry") -> "RunJob":
    """Return a callable that runs a job as a worker does, in the transaction of ``session`` and without Redis."""
    from arqonce.testing.failures import log_plainly
    from arqonce.testing.run_job import RunJob

    log_plainly()
    return RunJob(jobs_transaction, jobs_registry)


@pytest.fixture
def enqueued(request: pytest.FixtureRequest) -> "Iterator[EnqueuedJobs]":
    """Record what the code under test enqueues, in place of Redis. A test that uses ``run_job`` can also run it."""
    from arqonce.testing.enqueued import EnqueuedJobs
    from arqonce.testing.stand_ins import stand_in_for_redis

    run_job = request.getfixturevalue("run_job") if "jobs_transaction" in request.fixturenames else None
    jobs = EnqueuedJobs(run_job)
    with stand_in_for_redis(jobs):
        yield jobs


@pytest.fixture
def worker_environment(
    own_database: "DatabaseSettings", jobs_redis_url: str, jobs_registry: "Registry"
) -> dict[str, str]:
    """Return the environment of a worker with a database for this test alone and an empty queue.

    Its registry is ``jobs_registry``, if that was loaded by ``load_registry``.
    """
    from redis import Redis

    from arqonce.testing.environment import clean_environment

    with Redis.from_url(jobs_redis_url) as redis:
        redis.flushdb()
    paths = os.pathsep.join(path or os.curdir for path in sys.path)  # the worker can import what the test can
    setting = {} if jobs_registry.setting is None else {"WORKER_REGISTRY": jobs_registry.setting}
    return (
        clean_environment()
        | setting
        | {
            "DATABASE_URL": own_database.url.get_secret_value(),
            "REDIS_URL": jobs_redis_url,
            "WORKER_LOG_FORMAT": "json",
            "PYTHONPATH": paths,
        }
    )


@pytest.fixture(scope="session")
def jobs_programs() -> "Iterator[Programs]":
    """Yield the factory that forks worker processes from one that has already loaded all modules."""
    from arqonce.testing.programs import Programs

    with contextlib.closing(Programs()) as programs:
        yield programs


@pytest.fixture
def start_worker(
    pytestconfig: pytest.Config, worker_environment: dict[str, str], tmp_path: Path, jobs_programs: "Programs"
) -> "Iterator[StartWorker]":
    """Yield a function that starts a worker process and waits until it is ready. It is killed after the test."""
    from arqonce.testing.worker_process import worker_processes

    usual = (sys.executable, "-m", pytestconfig.getini("arqonce_module"), "run")
    with worker_processes(usual, worker_environment, tmp_path, jobs_programs) as start:
        yield start


@pytest.fixture(scope="session")
def crash_points_servers(jobs_postgres_url: str, jobs_redis_url: str) -> "Servers":
    """Return the servers on which crash points are proven, in separate databases."""
    from arqonce.testing.crash.worlds import Servers

    return Servers(database_url=jobs_postgres_url, redis_url=jobs_redis_url)


@pytest.fixture(scope="session")
def crash_points(
    crash_points_servers: "Servers",
    jobs_migrate: "Migrate",
    jobs_registry: "Registry",
    tmp_path_factory: pytest.TempPathFactory,
) -> "Iterator[CrashPoints]":
    """Yield the prover, which kills the worker at every point of a job and compares the end with a clean run."""
    from arqonce.testing.crash.crash_points import CrashPoints
    from arqonce.testing.crash.forks import Forks
    from arqonce.testing.crash.worlds import Worlds

    with contextlib.closing(Forks()) as forks:
        worlds = Worlds(crash_points_servers, tmp_path_factory.mktemp("crash-points"), jobs_migrate)
        yield CrashPoints(forks, worlds, jobs_registry)
