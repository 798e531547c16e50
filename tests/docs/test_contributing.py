"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the project."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis

from arqonce.database.schema import revisions
from db.tables import SCHEMA
from tests.docs.blocks import ROOT, blocks_in, commands_in

PAGE = "CONTRIBUTING.md"

pytestmark = pytest.mark.usefixtures("starts_processes")


def test_every_block_is_used() -> None:
    """Commands of two programs, and the files of the recipe for a job."""
    programs = {command[0] for block in blocks_in(PAGE, "console") for command in block.commands}

    assert programs == {"alembic", "make"}
    assert {block.kind for block in blocks_in(PAGE)} == {"console", "file"}
    assert [block.file for block in blocks_in(PAGE, "file")] == [
        "jobs/payloads.py", "jobs/users.py", "jobs/registry.py", "tests/jobs/test_rename_user.py",
    ]  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the project, as a developer's checkout; the library stays where it is."""
    copy = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("db", "jobs", "people", "worker", "web", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    shutil.copytree(ROOT / "arqonce", copy / "arqonce", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def _add_job(project: Path) -> None:
    for block in blocks_in(PAGE, "file"):
        file, code = project / str(block.file), block.code.partition("\n")[2]
        if file.name == "registry.py":
            imports, line = code.split("\n\n", 1)
            text = file.read_text().replace("REGISTRY = Registry(\n", f"REGISTRY = Registry(\n    {line}", 1)
            file.write_text(text.replace("from jobs.payloads", f"{imports}\nfrom jobs.payloads", 1))
        else:
            file.write_text((file.read_text() if file.exists() else "") + "\n\n" + code)


def test_the_recipe_for_a_new_job_works(project: Path, environment: dict[str, str], redis: Redis) -> None:
    """Its test passes, the command line knows it, and a worker runs it."""
    assert redis is not None
    _add_job(project)
    ours = environment | {"PYTHONPATH": str(project)}

    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-P", "-m", *command], cwd=project, env=ours, capture_output=True, text=True, check=False
        )

    tested = run("pytest", "-q", "tests/jobs/test_rename_user.py")
    enqueued = run("worker", "enqueue", "rename_user", "--id", "999999", "--name", "Janet", "--key", "rename")
    worked = run("worker", "run", "--burst")

    assert "1 passed" in tested.stdout, tested.stdout + tested.stderr
    assert (enqueued.returncode, worked.returncode) == (0, 0), enqueued.stderr + worked.stderr
    with SyncRedis.from_url(environment["REDIS_URL"]) as found:
        assert b'"type":"user_not_found"' in (found.get("arq:result:rename") or b"")


@pytest.fixture
def empty_database(environment: dict[str, str], postgres_url: str) -> Iterator[str]:
    """Make an empty database of its own."""
    run = [sys.executable, "-c", _ADMINISTRATE]
    subprocess.run([*run, postgres_url, "CREATE DATABASE contributing"], check=True, env=environment)
    yield postgres_url.rpartition("/")[0] + "/contributing"
    subprocess.run([*run, postgres_url, "DROP DATABASE contributing WITH (FORCE)"], check=True, env=environment)


_ADMINISTRATE = """
import asyncio, sys, asyncpg
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute(sys.argv[2])
    await connection.close()
asyncio.run(main())
"""


def test_the_recipe_for_a_migration_works(project: Path, environment: dict[str, str], empty_database: str) -> None:
    """A new column gets a migration that applies, checks, and is known to the worker by its file's name."""
    ours = environment | {"PYTHONPATH": str(project), "DATABASE_URL": empty_database}

    def alembic(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "alembic", *arguments]
        return subprocess.run(command, cwd=project, env=ours, capture_output=True, text=True, check=False)

    alembic("upgrade", "head")
    tables = project / "db" / "tables.py"
    column = "    name: Mapped[str]\n"
    tables.write_text(tables.read_text().replace(column, f"{column}    nickname: Mapped[str | None]\n"))
    done = [alembic(*command[1:]) for command in commands_in(PAGE, "alembic")]

    assert [(one.args, one.stderr) for one in done if one.returncode != 0] == []
    (migration,) = (project / "db/migrations").glob("*_add_something.py")
    assert migration.name == f"{int(revisions(SCHEMA)[-1]) + 1:04}_add_something.py"
    assert "nickname" in migration.read_text()
