"""The example project beside ours: in real workers, with its own migrations, and tested by its own tests."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from arqonce import JobClient
from jobs import CreateUser
from tests.conftest import StartWorker

pytestmark = pytest.mark.usefixtures("starts_processes")

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "shop"
SOON = timedelta(seconds=20)


@dataclass(frozen=True)
class World:
    """A database of the test's own, and the environment of processes that know the shop."""

    url: str
    environment: dict[str, str]

    def run(self, *command: str, cwd: Path = SHOP, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run a Python module to the end."""
        return subprocess.run(
            [sys.executable, "-m", *command], cwd=cwd, env=self.environment | variables,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    def execute(self, statement: str) -> list[asyncpg.Record]:
        """Run one statement and return its rows."""
        return asyncio.run(_execute(self.url, statement))


async def _execute(url: str, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


@pytest.fixture
def world(postgres_url: str, environment: dict[str, str]) -> Iterator[World]:
    """Make an empty database."""
    name = f"shop_{uuid4().hex}"
    url = f"{postgres_url.rpartition('/')[0]}/{name}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    known = {
        "DATABASE_URL": url,
        "WORKER_REGISTRY": "shop.jobs:REGISTRY",
        "PYTHONPATH": os.pathsep.join(map(str, (SHOP, ROOT))),
        "NO_COLOR": "1",
    }
    yield World(url, environment | known)
    asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def _failed(done: "subprocess.CompletedProcess[str]") -> tuple[int, str]:
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", ["ours", "arq"])
async def test_one_worker_runs_our_jobs_and_theirs(
    world: World, client: JobClient, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """In both ways of running it: same process, same database, typed answers and failures of their own."""
    monkeypatch.syspath_prepend(SHOP)
    from shop.payloads import PlaceOrder, UnknownBuyerError  # noqa: PLC0415 - found now only

    assert _failed(await asyncio.to_thread(world.run, "worker", "migrate")) == (0, "")
    commands = {"ours": (), "arq": (str(Path(sys.executable).parent / "arq"), "worker.WorkerSettings")}
    start_worker(*commands[command], **world.environment)

    jane = await (await client.enqueue(CreateUser(name="Jane"))).result(timeout=SOON)
    order = await (await client.enqueue(PlaceOrder(user_id=jane.id, item="a book"), key="o1")).result(timeout=SOON)
    with pytest.raises(UnknownBuyerError):
        await (await client.enqueue(PlaceOrder(user_id=jane.id + 1, item="a book"))).result(timeout=SOON)

    rows = await _execute(world.url, "SELECT o.id, u.name, item FROM orders o JOIN users u ON u.id = user_id")
    receipts = await _execute(world.url, "SELECT count(*) FROM job_receipts WHERE job_name = 'place_order'")
    assert [tuple(row) for row in rows] == [(order.id, "Jane", "a book")]
    assert receipts[0][0] == 2


def test_a_worker_refuses_to_start_on_a_schema_of_theirs_that_is_behind(world: World) -> None:
    """It says whose; one that is not told of them does not care."""
    world.run("worker", "migrate", WORKER_REGISTRY="")

    told = world.run("worker", "run", "--burst")
    several = world.run("worker", "run", "--burst", "--processes", "2")
    not_told = world.run("worker", "run", "--burst", WORKER_REGISTRY="")

    assert told.returncode == several.returncode == 4
    assert "lacks 1 of the migrations of shop (first: 0001). Run: users-worker migrate" in told.stderr
    assert "lacks 1 of the migrations of shop" in several.stderr
    assert not_told.returncode == 0


def test_migrate_applies_ours_and_theirs_and_may_be_repeated(world: World) -> None:
    """Each is noted in a table of its own; the revisions' numbers do not collide."""
    done = [world.run("worker", "migrate") for _ in range(2)]

    assert [_failed(one) for one in done] == [(0, ""), (0, "")]
    first, second = (one.stdout for one in done)
    assert first.startswith("users_worker: applied 0001, 0002, 0003, 0004")
    assert "\nshop: applied 0001\n" in first
    assert first.endswith(second)
    assert second.count("\n") == 1
    assert [row[0] for row in world.execute("SELECT version_num FROM alembic_version_shop")] == ["0001"]
    assert world.execute("SELECT version_num FROM alembic_version")[0][0] >= "0004"


def test_a_revision_of_ours_leaves_theirs_alone(world: World) -> None:
    """``--revision`` is for a step back in time of one project; numbers mean another thing in the other."""
    done = world.run("worker", "migrate", "--revision", "0001")

    tables = world.execute("SELECT to_regclass('users') IS NOT NULL, to_regclass('orders') IS NULL")
    assert _failed(done) == (0, "")
    assert tuple(tables[0]) == (True, True)


def test_a_table_that_is_there_already_stops_the_migration(world: World) -> None:
    """In one line, with nothing half applied."""
    world.execute("CREATE TABLE orders (id int)")

    done = world.run("worker", "migrate")

    assert done.returncode == 4
    assert "has a table or an index of that name already" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert world.execute("SELECT to_regclass('alembic_version_shop') IS NULL")[0][0]


@pytest.mark.parametrize("command", [["run"], ["run", "--processes", "2"], ["enqueue", "--help"], ["migrate"]])
def test_a_registry_that_cannot_be_used_is_one_line(world: World, command: list[str]) -> None:
    """Exit code 3: a setting is wrong, and no restart cures it."""
    done = world.run("worker", *command, WORKER_REGISTRY="shop.job:REGISTRY")

    assert done.returncode == 3
    assert done.stderr.startswith("users-worker: WORKER_REGISTRY: shop.job:REGISTRY: there is no module shop.job: ")
    assert len(done.stderr.splitlines()) == 1


def test_other_commands_explain_themselves_whatever_the_registry_is(world: World) -> None:
    """The cure may be in the help."""
    assert world.run("worker", "--help", WORKER_REGISTRY="shop.job:REGISTRY").returncode == 0


def _commands(program: str) -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```", (SHOP / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line[0] == program]


def test_the_commands_of_its_readme_work(world: World, client: JobClient) -> None:
    """In their order, with the setting that it exports."""
    assert client is not None  # the queue is empty
    (export,) = _commands("export")
    name, _, value = export[1].partition("=")
    told = replace(world, environment=world.environment | {name: value})

    done = [told.run("worker", *command[1:]) for command in _commands("users-worker")]

    assert [_failed(one) for one in done if one.returncode != 0] == []
    assert len(done) == 3
    refused = world.execute("SELECT failure ->> 'type' FROM job_receipts WHERE job_name = 'place_order'")
    assert [row[0] for row in refused] == ["unknown_buyer"]  # there is no user 1 yet


def test_its_migrations_are_written_by_alembic(world: World, tmp_path: Path) -> None:
    """In its own folder, by its own pyproject.toml: models and migrations agree, and a new one gets the next number."""
    copy = tmp_path / "shop"
    shutil.copytree(SHOP, copy, ignore=shutil.ignore_patterns("__pycache__"))
    paths = os.pathsep.join(map(str, (copy, ROOT)))
    world.run("worker", "migrate", PYTHONPATH=paths)
    upgrade, check, revision = [command[1:] for command in _commands("alembic")]

    first = [world.run("alembic", *command, cwd=copy, PYTHONPATH=paths) for command in (upgrade, check)]
    tables = copy / "shop" / "tables.py"
    tables.write_text(
        tables.read_text().replace("    item: Mapped[str]\n", "    item: Mapped[str]\n    note: Mapped[str | None]\n")
    )
    behind = world.run("alembic", *check, cwd=copy, PYTHONPATH=paths)
    second = [world.run("alembic", *command, cwd=copy, PYTHONPATH=paths) for command in (revision, upgrade, check)]

    assert [_failed(one) for one in (*first, *second) if one.returncode != 0] == []
    assert "add_column" in behind.stdout + behind.stderr
    (written,) = (copy / "shop" / "migrations").glob("0002_*.py")
    assert written.name == "0002_add_something.py"
    assert "drop_table" not in written.read_text()  # ours are none of its business


def test_it_type_checks() -> None:
    """Its tests as well: the answers of its jobs have their types."""
    ours = os.environ | {"MYPYPATH": os.pathsep.join(map(str, (SHOP, ROOT)))}
    command = [sys.executable, "-m", "mypy", "--strict", "shop", "tests"]

    done = subprocess.run(command, cwd=SHOP, env=ours, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """As it would run them: installed beside ours, with servers from wheels."""
    paths = os.pathsep.join(map(str, (SHOP, ROOT)))
    command = [sys.executable, "-m", "pytest", "-q", f"--basetemp={tmp_path}/t"]
    command += ["-pno:cacheprovider", "-ppytest_users_worker"]  # ours also if it was installed before it had a plugin
    ours = os.environ | {"PYTHONPATH": paths}

    done = subprocess.run(command, cwd=SHOP, env=ours, capture_output=True, text=True, timeout=110, check=False)

    assert _commands("pytest") == [["pytest"]]
    assert "4 passed" in done.stdout, done.stdout + done.stderr
