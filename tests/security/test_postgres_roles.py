"""The roles of ``deploy/postgres/`` in a database that was set up from nothing as the files say.

What they may do is shown by the end-to-end tests, which run under them.
"""

import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from arqonce.database.engine import open_database
from arqonce.database.faults import why_not_written
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_writable
from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import Delivery
from arqonce.failures import DatabaseFailedError
from arqonce.ledger.probe import require_written
from arqonce.ledger.schema import LEDGER
from arqonce.outbox import enqueue_in
from db.tables import SCHEMA
from tests import warm
from tests.arqonce.follow_ups import REGISTRY, Leaf
from tests.rights import DEPLOY, database_url, run_psql, set_passwords

pytestmark = pytest.mark.usefixtures("starts_processes")

DATABASE = "least_rights"
TABLES = {f"public.{table}" for table in (*SCHEMA.metadata.tables, "alembic_version")} | {
    *LEDGER.metadata.tables,
    "arqonce.ledger_version",
}
ROLES = ("worker", "relay", "operator", "producer", "reader")


@pytest.fixture(scope="module")
def admin_url(postgres_url: str) -> Iterator[str]:
    """Set up a database of its own: the roles, the migrations as the migrator, the grants as the migrator."""
    run_psql(postgres_url, "--command", f"CREATE DATABASE {DATABASE}")
    url = make_url(postgres_url).set(database=DATABASE).render_as_string(hide_password=False)
    run_psql(url, "--file", str(DEPLOY / "postgres" / "roles.sql"))
    set_passwords(url)
    _migrate(database_url(url, "migrator"))
    run_psql(database_url(url, "migrator"), "--file", str(DEPLOY / "postgres" / "grants.sql"))
    yield url
    run_psql(postgres_url, "--command", f"DROP DATABASE {DATABASE} WITH (FORCE)")


def _migrate(url: str) -> None:
    command = [sys.executable, "-m", "worker", "migrate"]
    done = warm.run(command, os.environ | {"DATABASE_URL": url})
    assert done.returncode == 0, done.stderr


@asynccontextmanager
async def _connect(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def _outcome(url: str, statement: str) -> str:
    async with _connect(url) as connection:
        try:
            await connection.execute(statement)
        except asyncpg.InsufficientPrivilegeError:
            return "denied"
        except asyncpg.ReadOnlySQLTransactionError:
            return "denied"
    return "allowed"


async def test_the_owner_owns_everything_and_cannot_log_in(admin_url: str) -> None:
    """What the migrator makes is the owner's: a stolen password of anybody's owns no table."""
    async with _connect(admin_url) as connection:
        owners = await connection.fetch(
            "SELECT concat(relnamespace::regnamespace, '.', relname) AS relname, relowner::regrole::text AS owner "
            "FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', 'arqonce') AND relkind IN ('r', 'S')"
        )
        may_log_in = await connection.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app_owner'")

    assert {row["owner"] for row in owners} == {"app_owner"}
    assert {row["relname"] for row in owners} >= TABLES
    assert not may_log_in


FORBIDDEN_TO_ALL = {
    "make a table": "CREATE TABLE mine (id int)",
    "make a temporary table": "CREATE TEMPORARY TABLE mine (id int)",
    "drop a table": "DROP TABLE users",
    "change a table": "ALTER TABLE users ADD COLUMN x int",
    "empty a table": "TRUNCATE users",
    "make a function": "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "become the owner": "SET ROLE app_owner",
    "make a role": "CREATE ROLE mine",
    "change users": "UPDATE users SET name = 'x'",
    "remove users": "DELETE FROM users",
    "backdate a user": "INSERT INTO users (name, created_at) VALUES ('x', now())",
    "forge the schema's version": "UPDATE alembic_version SET version_num = 'x'",
    "forge the ledger's version": "UPDATE arqonce.ledger_version SET version_num = 'x'",
    "make a table among the ledger's": "CREATE TABLE arqonce.mine (id int)",
    "forge an answer": "UPDATE arqonce.receipts SET result = '{}'",
    "forge the audit": "UPDATE arqonce.audit SET who = 'x'",
    "clean the audit": "DELETE FROM arqonce.audit",
    "backdate an act": "INSERT INTO arqonce.audit (at, who, act, target, number) VALUES (now(), 'x', 'x', 'x', 1)",
    "unsettle a job": "UPDATE arqonce.receipts SET job_id = 'x'",
    "read files": "SELECT pg_read_file('PG_VERSION')",
    "run programs": "COPY users TO PROGRAM 'cat'",
    "read passwords": "SELECT * FROM pg_authid",
}
FORBIDDEN_TO_ALL_BUT_OPERATORS = {
    "pause": "INSERT INTO arqonce.pauses (queue, reason, paused_by) VALUES ('x', 'x', 'x')",
    "resume": "DELETE FROM arqonce.pauses",
    "put an act on record": "INSERT INTO arqonce.audit (who, act, target, number) VALUES ('x', 'x', 'x', 1)",
}
FORBIDDEN_TO = {
    "worker": {
        "backdate a receipt": "UPDATE arqonce.receipts SET finished_at = now()",
        "backdate a promise": "INSERT INTO arqonce.outbox (job_id, created_at) VALUES ('x', now())",
        "change a promise": "UPDATE arqonce.outbox SET message = ''",
        "change the history": "UPDATE arqonce.attempts SET error = ''",
    },
    "relay": {
        "read users": "SELECT FROM users",
        "read answers": "SELECT result FROM arqonce.receipts",
        "forge receipts": "INSERT INTO arqonce.receipts (job_id) VALUES ('x')",
    },
    "operator": {
        "read users": "SELECT FROM users",
        "read answers": "SELECT result FROM arqonce.receipts",
        "remove receipts": "DELETE FROM arqonce.receipts",
        "write dead letters": "INSERT INTO arqonce.dead_jobs (job_id) VALUES ('x')",
        "read messages of the outbox": "SELECT message FROM arqonce.outbox",
        "clean the history": "DELETE FROM arqonce.attempts",
    },
    "producer": {
        "read users": "SELECT FROM users",
        "add users": "INSERT INTO users (name) VALUES ('x')",
        "read answers": "SELECT result FROM arqonce.receipts",
        "forge receipts": "INSERT INTO arqonce.receipts (job_id) VALUES ('x')",
        "read dead letters": "SELECT message FROM arqonce.dead_jobs",
    },
    "reader": {
        "read names": "SELECT name FROM users",
        "read e-mails": "SELECT email FROM users",
        "read answers": "SELECT result FROM arqonce.receipts",
        "read messages": "SELECT message FROM arqonce.dead_jobs",
        "read errors": "SELECT error FROM arqonce.dead_jobs",
        "read errors of attempts": "SELECT error FROM arqonce.attempts",
        "add users": "INSERT INTO users (name) VALUES ('x')",
    },
}


@pytest.mark.parametrize("role", ROLES)
async def test_nobody_may_do_more_than_its_part(admin_url: str, role: str) -> None:
    """Each statement is run by each role, and each is denied."""
    forbidden = FORBIDDEN_TO_ALL | FORBIDDEN_TO[role]
    if role != "operator":
        forbidden |= FORBIDDEN_TO_ALL_BUT_OPERATORS
    url = database_url(admin_url, role)

    outcomes = {name: await _outcome(url, statement) for name, statement in forbidden.items()}

    assert outcomes == dict.fromkeys(forbidden, "denied")


async def test_the_reader_sees_how_jobs_fare(admin_url: str) -> None:
    """Counts, ages and reasons, for a dashboard."""
    statement = (
        "SELECT count(id), max(created_at) FROM users; "
        "SELECT job_name, count(job_id), max(finished_at) FROM arqonce.receipts GROUP BY job_name; "
        "SELECT reason, count(job_id), max(died_at) FROM arqonce.dead_jobs GROUP BY reason"
    )

    assert await _outcome(database_url(admin_url, "reader"), statement) == "allowed"


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_has_limits(admin_url: str, role: str) -> None:
    """No statement, lock or idle transaction of a role lasts for ever, unless its session says so."""
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    async with _connect(database_url(admin_url, role)) as connection:
        limits = {name: await connection.fetchval(f"SHOW {name}") for name in names}

    assert [name for name, limit in limits.items() if limit == "0"] == []


async def test_no_role_shuts_the_others_out(admin_url: str) -> None:
    """All connections that the roles may open together are fewer than the server has by default for all."""
    async with _connect(admin_url) as connection:
        limits = await connection.fetch(
            "SELECT rolconnlimit FROM pg_roles WHERE rolname LIKE 'app_%' AND rolname <> 'app_web' AND rolcanlogin"
        )

    assert min(limit["rolconnlimit"] for limit in limits) > 0
    assert sum(limit["rolconnlimit"] for limit in limits) <= 100 - 3  # superuser_reserved_connections


async def test_the_files_may_be_run_again(admin_url: str) -> None:
    """In any order, with the same rights afterwards; a right that somebody has given by hand is taken back."""
    before = await _privileges(admin_url)
    run_psql(admin_url, "--command", "GRANT DELETE, UPDATE (name) ON users TO app_worker")

    run_psql(database_url(admin_url, "migrator"), "--file", str(DEPLOY / "postgres" / "grants.sql"))
    run_psql(admin_url, "--file", str(DEPLOY / "postgres" / "roles.sql"))
    _migrate(database_url(admin_url, "migrator"))

    assert await _privileges(admin_url) == before


async def _privileges(admin_url: str) -> set[tuple[str, ...]]:
    async with _connect(admin_url) as connection:
        rows = await connection.fetch(
            "SELECT grantee, concat(table_schema, '.', table_name), column_name, privilege_type "
            "FROM information_schema.column_privileges WHERE table_schema IN ('public', 'arqonce') UNION ALL "
            "SELECT grantee, concat(table_schema, '.', table_name), '', privilege_type "
            "FROM information_schema.table_privileges WHERE table_schema IN ('public', 'arqonce')"
        )
    return {tuple(row) for row in rows if row["grantee"] != "app_owner"}


async def test_no_new_table_is_forgotten(admin_url: str) -> None:
    """``grants.sql`` names every table, so a migration that adds one fails here until somebody decides on rights."""
    granted = {table for _, table, *_ in await _privileges(admin_url)}

    assert granted == TABLES


async def test_strangers_cannot_connect(admin_url: str) -> None:
    """A role of somebody else's has no way into the database."""
    run_psql(admin_url, "--command", "CREATE ROLE stranger LOGIN PASSWORD 'x'")
    stranger = make_url(admin_url).set(username="stranger", password="x").render_as_string(hide_password=False)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(stranger)
    finally:
        run_psql(admin_url, "--command", "DROP ROLE stranger")


@pytest.mark.parametrize(("role", "told"), [("worker", "its disk is full"), ("relay", "its user may not write")])
async def test_workers_and_relays_may_ask_whether_they_can_write(admin_url: str, role: str, told: str) -> None:
    """A full disk shows only when something is written; the worker tries it where its jobs would, and only it may."""
    refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE SQLSTATE '53100'; END $$"
    trigger = "CREATE TRIGGER refuse BEFORE INSERT ON arqonce.receipts FOR EACH ROW EXECUTE FUNCTION refuse()"
    settings = DatabaseSettings(url=SecretStr(database_url(admin_url, role)))
    async with open_database(settings, pool_size=1) as sessions, sessions() as session:
        await require_writable(session)
        await session.rollback()
        run_psql(admin_url, "--command", refuse, "--command", trigger)
        try:
            with pytest.raises(SQLAlchemyError) as caught:
                await require_written(session)
        finally:
            run_psql(admin_url, "--command", "DROP FUNCTION refuse CASCADE")

    assert str(why_not_written(caught.value)).startswith(told)


async def test_a_role_that_may_not_promise_is_told_what_to_grant(admin_url: str) -> None:
    """A service by a note at its error, a handler by its job's failure, which is no retry."""
    run_psql(admin_url, "--command", "REVOKE INSERT ON arqonce.outbox FROM app_worker, app_relay, app_producer")
    try:
        async with _connect(database_url(admin_url, "producer")) as connection:
            with pytest.raises(asyncpg.InsufficientPrivilegeError) as caught:
                await enqueue_in(connection, Leaf(name="x"))
        settings = DatabaseSettings(url=SecretStr(database_url(admin_url, "worker")))
        async with open_database(settings, pool_size=1) as sessions:
            with pytest.raises(DatabaseFailedError, match=r"SQLSTATE 42501: .* promise jobs: .*grants.sql"):
                await Dispatcher(sessions).run(REGISTRY["chain"], Delivery("j", 1, (), {"left": 1}))
    finally:
        run_psql(database_url(admin_url, "migrator"), "--file", str(DEPLOY / "postgres" / "grants.sql"))

    assert "GRANT app_producer TO it (deploy/postgres/roles.sql)" in caught.value.__notes__[0]
