"""PgBouncer in transaction mode: the real program, with fewer server connections than clients."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.connecting import READ_ONLY, why_unwritable
from arqonce.database.engine import open_database
from arqonce.database.schema import require_current_schemas
from arqonce.database.settings import DatabaseSettings
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.ledger.schema import LEDGER, upgrade_schemas
from arqonce.outbox import enqueue_in
from arqonce.relay.relay import open_relay
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from jobs import CreateUser
from jobs.registry import REGISTRY
from tests.conftest import wait_until, wait_until_async
from tests.tables import EMPTY_TABLES

pytestmark = pytest.mark.usefixtures("starts_processes")

JOBS, AT_ONCE, SERVER_CONNECTIONS = 400, 20, 5


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Make a folder that another account may enter; pytest's own are closed."""
    with TemporaryDirectory(prefix="pgbouncer-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def pgbouncer(database: DatabaseSettings, directory: Path) -> Iterator[DatabaseSettings]:
    """Start PgBouncer before the database of the tests."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("pgbouncer is missing: install what .ci/packages.txt names")
        pytest.skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    url, port = make_url(database.url.get_secret_value()), _free_port()
    (directory / "users.txt").write_text(f'"{url.username}" "{url.password}"\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n* = host={url.host} port={url.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {directory}/users.txt\n"
        f"pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 100\n"
    )
    account = _unprivileged_account(directory)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, f"{directory}/pgbouncer.ini"], stdout=log, stderr=log, user=account)
    try:
        wait_until(lambda: process.poll() is not None or "process up" in (directory / "log").read_text(), 10)
        assert process.poll() is None, (directory / "log").read_text()
        through = url.set(port=port).render_as_string(hide_password=False)
        yield DatabaseSettings(url=SecretStr(through), pgbouncer=True)
    finally:
        process.terminate()
        process.wait(10)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def _unprivileged_account(directory: Path) -> str | None:
    """Name whom to run as: PgBouncer refuses root."""
    if os.geteuid() != 0:
        return None
    for path in (directory, *directory.iterdir()):
        shutil.chown(path, "nobody")
    return "nobody"


async def test_many_jobs_run_through_it(pgbouncer: DatabaseSettings) -> None:
    """Twenty at once over five server connections: no prepared statement is missed or met twice."""
    async with open_database(pgbouncer, pool_size=AT_ONCE) as sessions:
        dispatcher, slots = Dispatcher(sessions), asyncio.Semaphore(AT_ONCE)

        async def run(number: int) -> dict[str, object]:
            name = ("create_user", "get_or_create_user", "find_user", "create_users")[number % 4]
            fields: dict[str, object] = {"name": f"User {number}"}
            if name == "get_or_create_user":
                fields["email"] = f"user{number % 400}@example.org"
            if name == "create_users":
                fields = {
                    "users": [{"name": f"User {number}"}, {"name": "x", "email": f"set{number % 40}@example.org"}]
                }
            async with slots:
                return await dispatcher.run(REGISTRY[name], Delivery(f"j{number}", 5, (), fields))

        results = await asyncio.gather(*(run(number) for number in range(JOBS)))

        async with sessions.begin() as session:
            stored = await session.scalar(text("SELECT count(*) FROM users"))
            await session.execute(EMPTY_TABLES)
    assert len(results) == JOBS
    # 100 by create_user; 100 e-mails of get_or_create_user (every fourth of 400); 100 nameless and 10 e-mails of sets.
    assert stored == 100 + 100 + 100 + 10


async def test_the_time_limits_hold_through_it(pgbouncer: DatabaseSettings) -> None:
    """PgBouncer takes no time limits at connecting: each transaction sets its own."""
    async with open_database(pgbouncer, pool_size=1) as sessions, sessions() as session:
        limit = await session.scalar(text("SHOW statement_timeout"))

    assert limit == "8s"


async def test_start_checks_and_migrations_work_through_it(pgbouncer: DatabaseSettings) -> None:
    """A worker behind PgBouncer starts like any other."""
    await asyncio.to_thread(upgrade_schemas, pgbouncer, REGISTRY.schemas)

    async with open_database(pgbouncer, pool_size=1) as sessions:
        await require_current_schemas(sessions, (LEDGER, *REGISTRY.schemas))


async def test_promises_are_given_through_it(pgbouncer: DatabaseSettings, queue: QueueSettings, redis: Redis) -> None:
    """No notification, no session lock: the relay looks every 500 ms, and leaves no lock behind."""
    settings = Settings(pgbouncer, queue, WorkerSettings())
    async with open_database(pgbouncer, pool_size=3) as sessions:
        async with open_relay(sessions, settings):
            for number in range(20):
                async with sessions.begin() as session:
                    await enqueue_in(session, CreateUser(name="Jane"), key=f"j{number}")
            async with asyncio.timeout(5):
                while await redis.zcard("arq:queue") < 20:
                    await asyncio.sleep(0.01)
        async with sessions.begin() as session:
            locks = await session.scalar(text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"))
            await session.execute(text("TRUNCATE arqonce.outbox"))
    assert locks == 0


async def test_a_server_that_cannot_be_written_to_is_seen_through_it(
    pgbouncer: DatabaseSettings, database: DatabaseSettings, sessions: async_sessionmaker[AsyncSession]
) -> None:
    """PgBouncer says nothing of the server behind it, and may lead each transaction to another connection."""
    assert sessions is not None
    job = Delivery("j1", 5, ("Jane",), {})
    async with open_database(pgbouncer, pool_size=5) as through:
        dispatcher = Dispatcher(through)
        await dispatcher.gate.check()
        await _set(database, "ALTER SYSTEM SET default_transaction_read_only = on", READ_ONLY)
        try:
            with pytest.raises(RetryLater) as postponed:
                await dispatcher.run(REGISTRY["create_user"], job)
            told = dispatcher.gate.trouble
        finally:
            await _set(database, "ALTER SYSTEM RESET default_transaction_read_only", None)

        result = await dispatcher.run(REGISTRY["create_user"], job)

    assert (postponed.value.counts, told) == (False, f"cannot be written to: {READ_ONLY}")
    assert result["name"] == "Jane"


async def _set(database: DatabaseSettings, statement: str, expected: str | None) -> None:
    """Change the server's settings, and wait until its sessions have them."""
    url = database.sqlalchemy_url.set(drivername="postgresql").render_as_string(hide_password=False)
    admin = await asyncpg.connect(url, server_settings={"default_transaction_read_only": "off"})
    watcher = await asyncpg.connect(url)
    await admin.execute(statement)
    await admin.execute("SELECT pg_reload_conf()")

    async def is_seen() -> bool:
        await watcher.execute("SELECT 1")
        return why_unwritable(watcher) == expected

    await wait_until_async(is_seen, 10)
    await admin.close()
    await watcher.close()
