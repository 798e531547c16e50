"""The library in a project that has a ``worker.py``, ``jobs/``, ``db/``, ``web/`` and a table ``users`` of its own."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from tests.installed.conftest import ROOT, pip

_WORKER = """
from arq.connections import RedisSettings
from jobs import REDIS_URL, greet

OWNER = "the service"


class WorkerSettings:
    functions = [greet]
    redis_settings = RedisSettings.from_dsn(REDIS_URL)
"""

_JOBS = """
import os

REDIS_URL = os.environ["REDIS_URL"]
OWNER = "the service"


async def greet(ctx: dict[str, object]) -> str:
    return "hello"
"""


@dataclass(frozen=True)
class Project:
    """A folder with the project, its environment, and a database that has its table ``users``."""

    folder: Path
    python: Path
    environment: dict[str, str]

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command of its environment, in its folder, to the end."""
        program, *arguments = command
        return subprocess.run(
            [self.python.parent / program, *arguments], cwd=self.folder, env=self.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    def arqonce(self, *arguments: str) -> str:
        """Run the library's command with the project's jobs; fail with what it says."""
        done = self.run("arqonce", "--registry", "shop.jobs:REGISTRY", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


async def _execute(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.fixture
def project(
    service: Path, python_of_workers: Path, postgres_url: str, environment: dict[str, str]
) -> Iterator[Project]:
    """Put a project with a registry and a table ``users`` of its own together."""
    shutil.rmtree(service / "worker")
    (service / "worker.py").write_text(_WORKER)
    (service / "jobs" / "__init__.py").write_text(_JOBS)
    shutil.copytree(ROOT / "examples" / "shop" / "shop", service / "shop", ignore=shutil.ignore_patterns("__pycache__"))
    name = f"project_{uuid4().hex}"
    url = f"{postgres_url.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    asyncio.run(_execute(url, "CREATE TABLE users (login text PRIMARY KEY)"))
    own = {"DATABASE_URL": url, "PYTHONPATH": str(service), "NO_COLOR": "1", "PATH": os.environ["PATH"]}
    yield Project(service, python_of_workers, environment | own)
    asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def test_names_of_the_project_are_its_own(project: Project) -> None:
    """Installing the library puts one package into the environment, which has all that it asks for."""
    owners = "; ".join(f"import {name}; print({name}.OWNER)" for name in ("worker", "jobs", "db", "web"))

    told = project.run("python", "-c", owners)

    assert (told.stdout, told.stderr) == ("the service\n" * 4, "")
    pip("check", python=project.python)


def test_arq_loads_the_projects_worker(project: Project, redis: object) -> None:
    """``arq worker.WorkerSettings`` finds the class in the project's folder, and not one of ours."""
    assert redis is not None  # nobody else has left a health key
    checked = project.run("arq", "--check", "worker.WorkerSettings")
    ran = project.run("arq", "--burst", "worker.WorkerSettings")

    assert "no health check sentinel value found" in checked.stdout + checked.stderr  # it has asked Redis for it
    assert ran.returncode == 0
    assert "Starting worker for 1 functions: greet" in ran.stdout + ran.stderr


def test_the_commands_work_there(project: Project, redis: object) -> None:
    """From migration to dead letters, on tables beside the project's own ``users``."""
    assert redis is not None  # the queue is empty

    migrated = project.arqonce("migrate")
    enqueued = project.arqonce("enqueue", "place_order", "--customer", "Jane", "--item", "a book", "--cents", "5")
    waiting = project.arqonce("status")
    project.arqonce("run", "--burst")
    rows = asyncio.run(_execute(project.environment["DATABASE_URL"], "SELECT customer, item FROM orders"))
    users = asyncio.run(_execute(project.environment["DATABASE_URL"], "SELECT * FROM users"))

    assert "shop: applied 0001" in migrated
    assert enqueued
    assert "1" in waiting
    assert [tuple(row) for row in rows] == [("Jane", "a book")]
    assert users == []
    assert project.arqonce("dead", "list") is not None
    health = project.run("arqonce", "--registry", "shop.jobs:REGISTRY", "health")
    assert health.returncode != 0  # no worker runs
    assert "Traceback" not in health.stderr
