"""The producer's side, installed beside a service that has packages of its own, and used from there."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

import jobs
import users_jobs
from tests.conftest import StartWorker
from tests.installed.conftest import PAYLOADS, Once, install_locked, pip
from tests.type_cache import CACHE
from tests.warm import NOT_OURS

CHECKS = Path(__file__).parent / "sample" / "redis_checks.py"

_LIST_INSTALLED = """
import importlib.metadata, json
print(json.dumps(sorted(found.name.lower() for found in importlib.metadata.distributions())))
"""

_LIST_PACKAGES = """
import json, os, sysconfig
print(json.dumps(os.listdir(sysconfig.get_path("purelib"))))
"""

_IMPORT_ALL = """
import importlib, json, pkgutil, sys
import arqonce, users_jobs, jobs, db, worker, web
from arqonce import JobClient, SyncJobClient, enqueue_in, enqueue_in_sync, JobFailedError, Payload, Result
rooms = ["client", "connection", "wire", "failures", "outbox", "payloads", "testing.enqueued", "testing.stand_ins"]
for room in rooms:
    module = importlib.import_module(f"arqonce.{room}")
    for found in pkgutil.iter_modules(getattr(module, "__path__", [])):
        importlib.import_module(f"arqonce.{room}.{found.name}")
for found in pkgutil.iter_modules(users_jobs.__path__):
    importlib.import_module(f"users_jobs.{found.name}")
loaded = {name.partition(".")[0] for name in sys.modules}
foreign = {"sqlalchemy", "asyncpg", "arq", "alembic", "pytest", "pydantic_settings"} & loaded
ours = [name for name in sys.modules if name.startswith(("arqonce.", "users_jobs."))]
owners = [module.OWNER for module in (jobs, db, worker, web)]
print(json.dumps({"modules": ours, "foreign": sorted(foreign), "owners": owners}))
"""

_ASK_FOR_MORE = """
import arqonce
try:
    arqonce.Registry
except ImportError as error:
    print(error)
"""


def _run(python: Path, code: str, service: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(python), "-W", "error", "-W", NOT_OURS, "-c", code],
        cwd=service, env=(environment or {}) | {"PYTHONPATH": str(service)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_names_are_of_the_same_classes_in_a_checkout() -> None:
    """``users_jobs`` is another name of ``jobs``: what an example imports works in both places."""
    names = vars(jobs)["__all__"]

    assert vars(users_jobs)["__all__"] == names
    assert all(getattr(users_jobs, name) is getattr(jobs, name) for name in names)


def test_environment_holds_what_a_producer_needs_and_no_more(python: Path, service: Path) -> None:
    """No SQLAlchemy, asyncpg or arq; psycopg is the service's own. All that the metadata asks for is there."""
    installed = set(json.loads(_run(python, _LIST_INSTALLED, service)))
    packages = set(json.loads(_run(python, _LIST_PACKAGES, service)))

    assert not installed & {"sqlalchemy", "asyncpg", "arq", "alembic", "typer", "pydantic-settings", "users-worker"}
    assert {"arqonce", "users-jobs", "pydantic", "redis", "hiredis", "psycopg"} <= installed
    assert {"arqonce", "users_jobs"} <= packages
    assert not {name.partition(".")[0] for name in packages} & {"jobs", "db", "worker", "web"}
    pip("check", python=python)


def test_every_module_can_be_imported_beside_packages_of_the_same_names(python: Path, service: Path) -> None:
    """The service's own packages stay its own, and nothing is loaded that a producer does not have."""
    found = json.loads(_run(python, _IMPORT_ALL, service))

    assert len(found["modules"]) >= 30
    assert (found["foreign"], found["owners"]) == ([], ["the service"] * 4)


def test_who_asks_for_more_is_told_what_to_install(python: Path, service: Path) -> None:
    """A registry needs SQLAlchemy, which comes with workers."""
    told = _run(python, _ASK_FOR_MORE, service)

    assert told == "arqonce.Registry needs sqlalchemy: pip install 'arqonce[worker]'\n"


async def test_service_enqueues_and_promises_from_there(
    python: Path,
    service: Path,
    environment: dict[str, str],
    start_worker: StartWorker,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """The programs of its README: both clients and the outbox, against a worker of the whole distribution."""
    start_worker()
    programs = re.findall(r"^```python\n(.*?)^```", (PAYLOADS / "README.md").read_text(), re.DOTALL | re.MULTILINE)

    said = "".join(_run(python, "import db, jobs\n" + program, service, environment) for program in programs)

    assert re.fullmatch(r"User ID: \d+, Name: Jane\nUser ID: \d+, Name: Joan\nUser ID: \d+, Name: Jim\n", said)
    async with sessions() as session:
        stored = await session.scalars(text("SELECT name FROM users ORDER BY id"))
        assert list(stored) == ["Jane", "Joan", "Jim"]


@pytest.fixture(params=["redis-5", "redis-6", "redis-7", "redis-8"])
def redis_py(request: pytest.FixtureRequest, once: Once) -> Path:
    """Install one version of redis-py, to be laid over an environment."""
    name: str = request.param
    return once(name, lambda folder: install_locked(f"{name}.txt", "--target", folder, "--no-deps"))


@pytest.fixture
def running(environment: dict[str, str], start_worker: StartWorker, sessions: object) -> dict[str, str]:
    """Start a worker on empty tables, and say where its servers are."""
    assert sessions is not None
    start_worker()
    return environment


def test_every_version_of_redis_py_that_we_take_works(
    redis_py: Path, python_of_tests: Path, service: Path, running: dict[str, str]
) -> None:
    """Both clients, waiting, aborts, promises and ``enqueued``, against a worker; and nothing warns of what goes."""
    (service / "test_it.py").write_bytes(CHECKS.read_bytes())
    version = redis_py.name.partition("-")[2]

    done = subprocess.run(
        [python_of_tests, "-m", "pytest", "-q", "-W", "error", "-W", NOT_OURS, "-p", "no:cacheprovider",
         "-o", "asyncio_mode=auto", "-o", "asyncio_default_fixture_loop_scope=function"],
        cwd=service, env=running | {"PYTHONPATH": f"{service}:{redis_py}", "REDIS_MAJOR": version},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_results_are_typed_there(python: Path, service: Path) -> None:
    """``py.typed`` comes along: to mypy, the answer of a ``CreateUser`` is a user."""
    program = "from arqonce import SyncJobClient\nfrom users_jobs import CreateUser\n\n\n"
    program += "def store(jobs: SyncJobClient) -> str:\n    return jobs.enqueue(CreateUser(name='Jane')).result().id\n"
    (service / "program.py").write_text(program)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(CACHE), "--config-file=",
         "--python-executable", str(python), "program.py"],
        cwd=service, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert '(got "int", expected "str")' in done.stdout
    assert "Found 1 error in 1 file" in done.stdout
