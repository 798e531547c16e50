"""The producer's side as a distribution of its own: built, installed beside a service, and used from there."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from tests.conftest import StartWorker
from tests.producer.conftest import PRODUCER, ROOT, build, pip

pytestmark = pytest.mark.usefixtures("starts_processes")

_LIST_INSTALLED = """
import importlib.metadata, json
print(json.dumps(sorted(found.name.lower() for found in importlib.metadata.distributions())))
"""

_IMPORT_ALL = """
import importlib, json, pkgutil, sys
import users_jobs, jobs, db
names = [module.name for module in pkgutil.walk_packages(users_jobs.__path__, "users_jobs.")]
for name in names:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in sys.modules}
foreign = {"sqlalchemy", "asyncpg", "arq", "alembic", "worker", "pytest"} & loaded
print(json.dumps({"modules": names, "foreign": sorted(foreign), "jobs": jobs.OWNER, "db": db.OWNER}))
"""


def _project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())
    return found


def _run(python: Path, code: str, service: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(python), "-W", "error", "-c", code],
        cwd=service, env=(environment or {}) | {"PYTHONPATH": str(service)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_one_package_and_its_plugin(wheel: Path) -> None:
    """No ``jobs``, ``db`` or ``worker`` lands in the environment of a service."""
    with zipfile.ZipFile(wheel) as archive:
        roots = {name.partition("/")[0] for name in archive.namelist()}

    assert roots == {
        "users_jobs",
        "pytest_users_jobs.py",
        f"users_jobs-{_project(PRODUCER)['project']['version']}.dist-info",
    }


def test_sdist_builds_the_same_wheel_also_beside_a_foreign_package_of_the_name(
    built: Path, wheel: Path, service: Path
) -> None:
    """An sdist needs no checkout, and takes nothing from the folder around it."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(service, filter="data")
    (unpacked,) = service.glob("users_jobs-*")

    build(unpacked, service / "dist", "-t", "wheel")

    assert (service / "dist" / wheel.name).read_bytes() == wheel.read_bytes()


def test_modules_are_those_that_the_contract_keeps_free_of_drivers(wheel: Path) -> None:
    """What a producer gets is what import-linter watches, so that neither list is forgotten."""
    contracts = _project(ROOT)["tool"]["importlinter"]["contracts"]
    (watched,) = [found["source_modules"] for found in contracts if found["name"].startswith("A producer loads")]
    with zipfile.ZipFile(wheel) as archive:
        files = {name.removeprefix("users_jobs/") for name in archive.namelist() if name.startswith("users_jobs/")}
    modules = {name.removesuffix(".py").replace("/", ".") for name in files if name.endswith(".py")}

    assert modules - {"__init__", "testing.__init__"} == {name.removeprefix("jobs.") for name in watched}


def test_no_text_of_the_package_names_the_other_one(wheel: Path) -> None:
    """Also errors and docstrings tell a producer to import ``users_jobs``."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}

    named = re.compile(rf"(?<![\w.])jobs\.(testing|{'|'.join(Path(name).stem for name in texts)})\b|from jobs\b")
    assert [name for name, code in texts.items() if named.search(code)] == []


def test_version_and_dependencies_are_those_of_the_worker() -> None:
    """Two files say them; a producer asks for nothing that a worker would refuse."""
    ours, whole = _project(PRODUCER)["project"], _project(ROOT)["project"]

    assert (ours["version"], ours["requires-python"]) == (whole["version"], whole["requires-python"])
    assert set(ours["dependencies"]) <= set(whole["dependencies"])
    assert (PRODUCER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.parametrize("name", ["arqonce/connection/tls.py", "arqonce/testing/answers.py"])
def test_source_that_imports_more_than_is_installed_is_not_built(name: str, tmp_path: Path) -> None:
    """A module that a producer cannot import fails the build, and not the service."""
    for folder in ("jobs", "jobs/testing", "producer"):
        (tmp_path / folder).mkdir()
        for file in (file for file in (ROOT / folder).iterdir() if file.is_file()):
            (tmp_path / folder / file.name).write_bytes(file.read_bytes())
    with (tmp_path / name).open("a") as module:
        module.write("\n\ndef late() -> None:\n    import sqlalchemy\n")

    with pytest.raises(subprocess.CalledProcessError) as failed:
        build(tmp_path / "producer", tmp_path / "dist")

    assert f"{name} imports sqlalchemy, which a producer does not install".encode() in failed.value.stderr


def test_pip_installs_it_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """With ``pip install ./users-worker/producer``: the folder alone is named, and the sources beside it are found."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]

    subprocess.run([*command, "-w", str(tmp_path), str(PRODUCER)], check=True, capture_output=True)

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_environment_holds_what_a_producer_needs_and_no_more(python: Path, service: Path) -> None:
    """No SQLAlchemy, asyncpg or arq; psycopg is the service's own. All that the metadata asks for is there."""
    installed = set(json.loads(_run(python, _LIST_INSTALLED, service)))

    assert not installed & {"sqlalchemy", "asyncpg", "arq", "alembic", "typer", "users-worker"}
    assert {"users-jobs", "pydantic", "redis", "hiredis", "psycopg"} <= installed
    pip("check", python=python)


def test_every_module_can_be_imported_beside_packages_named_jobs_and_db(python: Path, service: Path) -> None:
    """The service's own packages stay its own."""
    found = json.loads(_run(python, _IMPORT_ALL, service))

    assert len(found["modules"]) >= 15
    assert (found["foreign"], found["jobs"], found["db"]) == ([], "the service", "the service")


async def test_service_enqueues_and_promises_from_there(
    python: Path,
    service: Path,
    environment: dict[str, str],
    start_worker: StartWorker,
    sessions: async_sessionmaker[AsyncSession],
) -> None:
    """The programs of its README: both clients and the outbox, against a worker of the whole distribution."""
    start_worker()
    programs = re.findall(r"^```python\n(.*?)^```", (PRODUCER / "README.md").read_text(), re.DOTALL | re.MULTILINE)

    said = "".join(_run(python, "import db, jobs\n" + program, service, environment) for program in programs)

    assert re.fullmatch(r"User ID: \d+, Name: Jane\nUser ID: \d+, Name: Joan\nUser ID: \d+, Name: Jim\n", said)
    async with sessions() as session:
        stored = await session.scalars(text("SELECT name FROM users ORDER BY id"))
        assert list(stored) == ["Jane", "Joan", "Jim"]


def test_results_are_typed_there(python: Path, service: Path) -> None:
    """``py.typed`` comes along: to mypy, the answer of a ``CreateUser`` is a user."""
    program = "from users_jobs import CreateUser, SyncJobClient\n\n\n"
    program += "def store(jobs: SyncJobClient) -> str:\n    return jobs.enqueue(CreateUser(name='Jane')).result().id\n"
    (service / "program.py").write_text(program)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--python-executable", str(python), "program.py"],
        cwd=service, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert '(got "int", expected "str")' in done.stdout
    assert "Found 1 error in 1 file" in done.stdout
