"""The example project: in real workers, with its own command and migrations, and tested by its own tests."""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from arqonce import JobClient
from tests import warm
from tests.conftest import StartWorker, wait_until
from tests.type_cache import CACHE

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
        return warm.run_elsewhere(*command, env=self.environment | variables, cwd=cwd)

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
        "PYTHONPATH": os.pathsep.join(map(str, (SHOP, ROOT))),
        "NO_COLOR": "1",
    }
    yield World(url, environment | known)
    asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


def _failed(done: "subprocess.CompletedProcess[str]") -> tuple[int, str]:
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "command", [("shop",), ("arqonce", "--registry", "shop.jobs:REGISTRY")], ids=["own", "library"]
)
async def test_a_worker_runs_its_jobs(
    world: World,
    client: JobClient,
    start_worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    """By its own command and by the library's: typed answers and failures of its own, and a receipt of each."""
    monkeypatch.syspath_prepend(SHOP)
    from shop.payloads import AlreadyOrderedError, PlaceOrder  # noqa: PLC0415 - found now only

    book = PlaceOrder(customer="Jane", item="a book", cents=1250)
    assert _failed(await asyncio.to_thread(world.run, *command, "migrate")) == (0, "")
    start_worker(sys.executable, "-m", *command, "run", **world.environment)

    order = await (await client.enqueue(book, key="o1")).result(timeout=SOON)
    with pytest.raises(AlreadyOrderedError):
        await (await client.enqueue(book, key="o2")).result(timeout=SOON)

    rows = await _execute(world.url, "SELECT id, customer, item FROM orders")
    receipts = await _execute(world.url, "SELECT count(*) FROM arqonce.receipts WHERE job_name = 'place_order'")
    assert [tuple(row) for row in rows] == [(order.id, "Jane", "a book")]
    assert receipts[0][0] == 2


def test_a_worker_refuses_to_start_on_a_schema_that_is_behind(world: World) -> None:
    """It says whose; one that is not told of the project does not care."""
    first = world.run("arqonce", "migrate")

    told = world.run("shop", "run", "--burst")
    several = world.run("shop", "run", "--burst", "--processes", "2")
    not_told = world.run("arqonce", "status")

    assert _failed(first) == (0, "")
    assert told.returncode == several.returncode == 4
    assert "lacks 2 of the migrations of shop (first: 0001). Apply them with the command migrate" in told.stderr
    assert "lacks 2 of the migrations of shop" in several.stderr
    assert not_told.returncode == 0


def test_migrate_applies_the_librarys_and_its_own_and_may_be_repeated(world: World) -> None:
    """Each is noted in a table of its own; the revisions' numbers do not collide."""
    done = [world.run("shop", "migrate") for _ in range(2)]

    assert [_failed(one) for one in done] == [(0, ""), (0, "")]
    first, second = (one.stdout for one in done)
    assert first.startswith("arqonce: applied 0001")
    assert "\nshop: applied 0001, 0002\n" in first
    assert first.endswith(second)
    assert second.count("\n") == 1
    assert [row[0] for row in world.execute("SELECT version_num FROM alembic_version")] == ["0002"]
    assert world.execute("SELECT version_num FROM arqonce.ledger_version")[0][0] >= "0001"
    assert world.execute("SELECT to_regclass('users') IS NULL")[0][0]  # nothing of users-worker


def test_a_revision_of_its_own_leaves_the_librarys_alone(world: World) -> None:
    """``--revision`` is for a step back in time of one project; numbers mean another thing in the other."""
    done = world.run("shop", "migrate", "--revision", "0001")

    tables = world.execute("SELECT to_regclass('orders') IS NOT NULL, to_regclass('arqonce.ledger_version') IS NULL")
    assert _failed(done) == (0, "")
    assert tuple(tables[0]) == (True, True)


def test_a_table_that_is_there_already_stops_the_migration(world: World) -> None:
    """In one line, with nothing half applied."""
    world.execute("CREATE TABLE orders (id int)")

    done = world.run("shop", "migrate")

    assert done.returncode == 4
    assert "do not fit the tables of the database (SQLSTATE 42P07)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert world.execute("SELECT to_regclass('alembic_version') IS NULL")[0][0]


@pytest.mark.parametrize("command", [["run"], ["run", "--processes", "2"], ["enqueue", "--help"], ["migrate"]])
def test_a_registry_that_cannot_be_used_is_one_line(world: World, command: list[str]) -> None:
    """Exit code 3: a setting is wrong, and no restart cures it."""
    done = world.run("shop", *command, WORKER_REGISTRY="shop.job:REGISTRY")

    assert done.returncode == 3
    assert done.stderr.startswith("shop: WORKER_REGISTRY: shop.job:REGISTRY: there is no module shop.job: ")
    assert len(done.stderr.splitlines()) == 1


def test_two_projects_that_note_migrations_in_one_table_are_told(world: World) -> None:
    """Both with Alembic's usual one: one of them must name another, before anything is applied."""
    done = world.run("worker", "migrate", WORKER_REGISTRY="shop.jobs:REGISTRY")

    assert done.returncode == 3
    assert "its version_table alembic_version is that of users-worker: give its Schema another" in done.stderr


def test_other_commands_explain_themselves_whatever_the_registry_is(world: World) -> None:
    """The cure may be in the help."""
    assert world.run("shop", "--help", WORKER_REGISTRY="shop.job:REGISTRY").returncode == 0


def _commands(program: str) -> list[list[str]]:
    blocks = re.findall(r"^```console\n(.*?)^```", (SHOP / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line) for block in blocks for line in block.splitlines()]
    return [line for line in lines if line[0] == program]


async def test_the_commands_of_its_readme_work(
    world: World, client: JobClient, start_worker: StartWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order; the last is its own. The stub of the bank and of the mail service answers."""
    assert client is not None  # the queue is empty
    for folder in (SHOP, SHOP / "tests"):
        monkeypatch.syspath_prepend(folder)
    from stub_services import StubServices, serve  # noqa: PLC0415 - found now only

    migrate, run, enqueue, orders, schedules = _commands("shop")
    services = StubServices(busy=1)

    async with serve(services) as url:
        migrated = await asyncio.to_thread(world.run, *migrate)
        worker = await asyncio.to_thread(
            partial(start_worker, sys.executable, "-m", *run, **world.environment, BANK_URL=url, MAIL_URL=url)
        )
        enqueued = await asyncio.to_thread(world.run, *enqueue)
        await asyncio.to_thread(wait_until, lambda: services.mails, 20)
        printed = await asyncio.to_thread(world.run, *orders)
        listed = await asyncio.to_thread(world.run, *schedules)
        await asyncio.to_thread(worker.stop)

    assert [_failed(one) for one in (migrated, enqueued, printed, listed) if one.returncode != 0] == []
    assert printed.stdout == "1: a book for Jane, paid\n"
    assert "0 2 * * * in Europe/Berlin" in listed.stdout
    assert list(services.mails.values()) == ["Jane: You have paid 12.50 EUR for a book."]
    assert _commands("python") == [["python", "tests/stub_services.py"]]


def test_its_migrations_are_written_by_alembic(world: World, tmp_path: Path) -> None:
    """In its own folder, by its own pyproject.toml: models and migrations agree, and a new one gets the next number."""
    copy = tmp_path / "shop"
    shutil.copytree(SHOP, copy, ignore=shutil.ignore_patterns("__pycache__"))
    paths = os.pathsep.join(map(str, (copy, ROOT)))
    world.run("shop", "migrate", PYTHONPATH=paths)
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
    (written,) = (copy / "shop" / "migrations").glob("0003_*.py")
    assert written.name == "0003_add_something.py"
    assert "drop_table" not in written.read_text()  # the library's are none of its business


def test_it_gives_its_payloads_to_producers_as_its_readme_says(tmp_path: Path) -> None:
    """As they are, under a name of their own, and nothing else; they need the producer's side alone."""
    copy = tmp_path / "shop"
    shutil.copytree(SHOP / "shop", copy, ignore=shutil.ignore_patterns("__pycache__"))
    (project,) = re.findall(r"^```toml\n(.*?)^```", (SHOP / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (copy / "pyproject.toml").write_text(project)
    code = "from shop_jobs.payloads import PlaceOrder; import sys; print({'sqlalchemy', 'shop'} & set(sys.modules))"

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"], cwd=copy, check=True, capture_output=True
    )
    (wheel,) = copy.glob("dist/*.whl")
    told = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(wheel)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert (told.stdout, told.stderr) == ("set()\n", "")
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert files == {f"shop_jobs/{name}" for name in ("__init__.py", "payloads.py", "py.typed")}


def test_it_uses_what_is_offered_and_nothing_else() -> None:
    """A project that is a model must not reach into rooms that may change."""
    texts = [file.read_text() for file in SHOP.rglob("*.py")]

    used = {match for text in texts for match in re.findall(r"^\s*(?:from|import) (arqonce[\w.]*)", text, re.MULTILINE)}

    offered = ("arqonce", "arqonce.application", "arqonce.main")
    assert {module for module in used if module not in offered and not module.startswith("arqonce.testing.")} == set()


def test_it_type_checks() -> None:
    """Its tests as well: the answers of its jobs have their types."""
    ours = os.environ | {"MYPYPATH": os.pathsep.join(map(str, (SHOP, ROOT)))}
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(CACHE), "shop", "tests"]

    done = subprocess.run(command, cwd=SHOP, env=ours, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout


def _run_its_tests(tmp_path: Path, chosen: str) -> str:
    paths = os.pathsep.join(map(str, (SHOP, ROOT)))
    command = ["pytest", "-q", f"--basetemp={tmp_path}/t", "-pno:cacheprovider", "-k", chosen]
    done = warm.run_elsewhere(*command, env=os.environ | {"PYTHONPATH": paths}, cwd=SHOP, timeout=250)
    return done.stdout + done.stderr


def test_its_own_tests_pass(tmp_path: Path) -> None:
    """As it would run them: installed beside ours, with servers from wheels."""
    told = _run_its_tests(tmp_path, "not placed_charged_and_mailed")

    assert _commands("pytest") == [["pytest"]]
    assert "10 passed, 1 deselected" in told, told


@pytest.mark.timeout(300)  # a minute of CPU time, which other tests share
def test_its_longest_proof_passes(tmp_path: Path) -> None:
    """Workers die at each point of three jobs, one after the other."""
    told = _run_its_tests(tmp_path, "placed_charged_and_mailed")

    assert "1 passed, 10 deselected" in told, told
