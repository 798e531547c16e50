"""Every command and code block of the README and of CONTRIBUTING does what the text says."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.schema import revisions
from db.tables import SCHEMA
from tests.conftest import StartWorker, wait_until
from tests.docs.settings_table import README, with_table
from tests.programs import require

ROOT = README.parent
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
NODE = Path(__file__).parent / "node"


def _blocks(file: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _commands(file: Path, program: str) -> list[list[str]]:
    lines = [line for block in _blocks(file, "console") for line in block.splitlines()]
    return [shlex.split(line) for line in lines if line.split()[0] == program]


def _example(text: str) -> str:
    """Return the one Python block that contains ``text``."""
    (block,) = [block for block in _blocks(README, "python") if text in block]
    return block


@pytest.fixture
def _worker(start_worker: StartWorker, sessions: async_sessionmaker[AsyncSession]) -> None:
    assert sessions is not None  # it removes the users afterwards
    start_worker()


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    """A block in another language would be executed by nobody."""
    fences = re.findall(r"^```(\w*)$", README.read_text() + CONTRIBUTING.read_text(), re.MULTILINE)
    programs = {
        line.split()[0] for file in (README, CONTRIBUTING) for line in "".join(_blocks(file, "console")).splitlines()
    }

    assert set(fences) == {"", "console", "js", "python"}
    assert programs == {"alembic", "curl", "make", "users-web", "users-worker"}
    assert len(_blocks(README, "python")) == 14


def test_the_settings_table_is_that_of_the_code() -> None:
    """``make fix`` writes it."""
    text = README.read_text(encoding="utf-8")

    assert text == with_table(text)


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("command", [*_commands(README, "make"), *_commands(CONTRIBUTING, "make")], ids=" ".join)
def test_every_make_target_exists(command: list[str]) -> None:
    """What they do is what this run of tests, and CI, do."""
    done = subprocess.run([*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("starts_processes")
def test_make_alone_lists_the_targets() -> None:
    """One line each."""
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)

    assert {"demo", "dev", "test", "check", "fix", "migrate", "run"} <= {
        line.split()[1] for line in done.stdout.splitlines()
    }


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.usefixtures("redis")
def test_the_commands_of_the_readme_work_in_their_order(
    environment: dict[str, str], sessions: async_sessionmaker[AsyncSession]
) -> None:
    """Each ends with 0."""
    assert sessions is not None  # it removes the users afterwards
    program = Path(sys.executable).parent / "users-worker"

    done = [
        subprocess.run([str(program), *command[1:]], env=environment, capture_output=True, text=True, check=False)
        for command in _commands(README, "users-worker")
    ]

    assert [(one.args, one.stderr) for one in done if one.returncode != 0] == []
    assert len(done) == 9


@pytest.mark.usefixtures("_worker")
@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("signup-4711", "User ID: "),
        ("signup-4712", "User ID: "),
        ("order-4711", "User ID: "),
        ("create_pool", "'name': 'Jane'"),
    ],
)
def test_the_producers_in_python_get_their_user(environment: dict[str, str], text: str, output: str) -> None:
    """Our two clients, a promise in a transaction, and plain arq with our two functions."""
    done = subprocess.run(
        [sys.executable, "-c", _example(text)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert output in done.stdout


_DJANGO = """
import os
from urllib.parse import urlsplit
import django
from django.conf import settings

url = urlsplit(os.environ["DATABASE_URL"])
server = {"HOST": url.hostname, "PORT": url.port, "USER": url.username, "PASSWORD": url.password}
database = {"ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:]} | server
settings.configure(DATABASES={"default": database})
django.setup()
"""


@pytest.mark.usefixtures("_worker")
def test_a_django_service_promises_in_its_transaction(environment: dict[str, str]) -> None:
    """On the connection that Django has; the same key again has the same user."""
    code = _DJANGO + _example("transaction.atomic") + '\nprint(order("Jane", key="o1") == order("Jane", key="o1"))\n'

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.usefixtures("starts_processes")
@pytest.mark.parametrize("text", ["signup-4711", "signup-4712", "order-4711", "create_pool"])
def test_the_producers_in_python_type_check(tmp_path: Path, text: str) -> None:
    """``result`` of a ``CreateUser`` is a user to mypy, too."""
    (tmp_path / "producer.py").write_text(_example(text).replace("user.id", "user.id + 1"))

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(tmp_path / "producer.py")],
        cwd=ROOT, env=os.environ | {"MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("_worker")
def test_the_service_answers_curl(environment: dict[str, str], tmp_path: Path) -> None:
    """Jane is created, found, and the description is there; the port is another one, so that 8080 may be taken."""
    require("curl")
    (service,) = _commands(README, "users-web")
    log = tmp_path / "web.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).parent / service[0]],
            env=environment | {"WEB_PORT": "0", "WEB_LOG_FORMAT": "json"}, stdin=subprocess.DEVNULL, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: '"port": ' in log.read_text() or process.poll() is not None, 30)
        port = re.findall(r'"port": (\d+)', log.read_text())[0]
        commands = [[part.replace(":8080/", f":{port}/") for part in one] for one in _commands(README, "curl")]
        answers = [json.loads(subprocess.run(one, capture_output=True, check=True).stdout) for one in commands]
    finally:
        process.terminate()

    created, found, described = answers
    assert process.wait(30) == 0
    assert (found, described["openapi"]) == ({"id": created["id"], "name": "Jane"}, "3.1.0")


@pytest.mark.usefixtures("_worker")
def test_the_producer_in_node_gets_its_user(environment: dict[str, str], tmp_path: Path) -> None:
    """Written to the documented keys by npm's redis client."""
    require("node", "npm")
    (script,) = _blocks(README, "js")
    (tmp_path / "producer.mjs").write_text(script)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(NODE / name, tmp_path)
    subprocess.run(
        ["npm", "ci", "--no-audit", "--no-fund"], cwd=tmp_path, env=environment, check=True, capture_output=True
    )

    done = subprocess.run(
        ["node", "producer.mjs"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert re.match(r"true \{\s*id: \d+,\s*name: 'Jane',\s*email: null", done.stdout)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Copy the project, as a developer's checkout."""
    copy = tmp_path / "project"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("db", "jobs", "worker", "web", "embedded", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def _add_job(project: Path) -> None:
    """Follow the README's recipe for a new job to the letter."""
    for block in _blocks(README, "python"):
        if match := re.match(r"# (\S+\.py)\n", block):
            file, code = project / match[1], block[match.end() :]
            if file.name == "registry.py":
                imports, line = code.split("\n\n", 1)
                text = file.read_text().replace("REGISTRY = Registry(\n", f"REGISTRY = Registry(\n    {line}", 1)
                file.write_text(text.replace("from jobs.failures", f"{imports}\nfrom jobs.failures", 1))
            else:
                file.write_text((file.read_text() if file.exists() else "") + "\n\n" + code)


@pytest.mark.usefixtures("starts_processes")
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


@pytest.mark.usefixtures("starts_processes")
def test_the_recipe_for_a_migration_works(project: Path, environment: dict[str, str], empty_database: str) -> None:
    """A new column gets a migration that applies, checks, and is known to the worker by its file's name."""
    ours = environment | {"PYTHONPATH": str(project), "DATABASE_URL": empty_database}

    def alembic(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "alembic", *arguments]
        return subprocess.run(command, cwd=project, env=ours, capture_output=True, text=True, check=False)

    alembic("upgrade", "head")
    tables = project / "db" / "tables.py"
    tables.write_text(tables.read_text() + "    nickname: Mapped[str | None]\n")  # of the last table
    done = [alembic(*command[1:]) for command in _commands(CONTRIBUTING, "alembic")]

    assert [(one.args, one.stderr) for one in done if one.returncode != 0] == []
    (migration,) = (project / "db/migrations").glob("*_add_something.py")
    assert migration.name == f"{len(revisions(SCHEMA)) + 1:04}_add_something.py"
    assert "nickname" in migration.read_text()
