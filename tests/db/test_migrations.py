"""Migrations against the tables of the code, on databases of their own."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import inspect, make_url, text

from arqonce.database.engine import build_engine, open_database
from arqonce.database.migrate import UnknownRevisionError, check_migrations, downgrade_schema, upgrade_schema
from arqonce.database.schema import SchemaBehindError, require_current_schemas, revisions
from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import LEDGER, upgrade_schemas
from arqonce.ledger.tables import Base as LedgerBase
from db.tables import SCHEMA, Base
from jobs.registry import REGISTRY


@pytest.fixture
def empty(postgres_url: str) -> Iterator[DatabaseSettings]:
    """Make an empty database, and drop it after the test."""
    name = f"test_{uuid4().hex}"
    _administrate(postgres_url, f"CREATE DATABASE {name}")
    yield DatabaseSettings(
        url=SecretStr(make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    )
    _administrate(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


def _administrate(url: str, statement: str) -> None:
    async def execute() -> None:
        engine = build_engine(DatabaseSettings(url=SecretStr(url)), pool_size=1)
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text(statement))
        await engine.dispose()

    asyncio.run(execute())


def _scalars(settings: DatabaseSettings, query: str) -> list[object]:
    async def read() -> list[object]:
        async with open_database(settings, pool_size=1) as sessions, sessions() as session:
            return list(await session.scalars(text(query)))

    return asyncio.run(read())


def _tables(settings: DatabaseSettings) -> set[str]:
    async def read() -> set[str]:
        engine = build_engine(settings, pool_size=1)
        async with engine.connect() as connection:
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        await engine.dispose()
        return set(names)

    return asyncio.run(read())


def _require_current(settings: DatabaseSettings) -> None:
    async def require() -> None:
        async with open_database(settings, pool_size=1) as sessions:
            await require_current_schemas(sessions, (LEDGER, *REGISTRY.schemas))

    asyncio.run(require())


def _execute(settings: DatabaseSettings, statement: str) -> None:
    _administrate(settings.url.get_secret_value(), statement)


def test_migrations_make_the_tables_of_the_code(empty: DatabaseSettings) -> None:
    """``alembic check`` finds nothing that a migration lacks."""
    upgrade_schemas(empty, REGISTRY.schemas)

    for schema in (LEDGER, SCHEMA):
        check_migrations(empty, schema)


def test_every_migration_can_be_undone_and_applied_again(empty: DatabaseSettings) -> None:
    """Down to nothing and up again."""
    upgrade_schemas(empty, REGISTRY.schemas)

    for schema in (SCHEMA, LEDGER):
        downgrade_schema(empty, schema, "base")
    after_down = _tables(empty)
    versions = {LEDGER.version_table, SCHEMA.version_table}
    upgrade_schemas(empty, REGISTRY.schemas)

    assert (after_down, _tables(empty)) == (versions, {*versions, *LedgerBase.metadata.tables, *Base.metadata.tables})


def test_an_empty_database_is_behind_and_says_the_cure(empty: DatabaseSettings) -> None:
    """A worker that starts before the migration says which command to run."""
    with pytest.raises(SchemaBehindError, match="Apply them with the command migrate"):
        _require_current(empty)


def test_files_are_named_for_their_revisions(empty: DatabaseSettings) -> None:
    """A worker tells by the names of the files which migrations there are: they must be Alembic's own."""
    upgrade_schemas(empty, REGISTRY.schemas)

    stored = _scalars(empty, "SELECT version_num FROM alembic_version")

    assert stored == revisions(SCHEMA)[-1:]


def test_a_half_migrated_database_is_behind(empty: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first migration that is missing is named."""
    upgrade_schemas(empty, REGISTRY.schemas)
    monkeypatch.setattr("arqonce.database.schema.revisions", lambda schema: [*revisions(schema), "9998", "9999"])

    with pytest.raises(SchemaBehindError, match=r"lacks 2 .*first: 9998"):
        _require_current(empty)


def test_a_newer_database_is_welcome(empty: DatabaseSettings) -> None:
    """Deploys migrate first: old workers start on a schema that they do not know yet."""
    upgrade_schemas(empty, REGISTRY.schemas)
    _execute(empty, "UPDATE alembic_version SET version_num = '9999'")

    _require_current(empty)
    upgrade_schemas(empty, REGISTRY.schemas)  # after a rollback of the code, a deploy migrates as ever


def test_an_unknown_revision_names_the_known_ones(empty: DatabaseSettings) -> None:
    """A slip of the pen is no newer database."""
    with pytest.raises(UnknownRevisionError, match="there is no revision zzz: there are 0001"):
        upgrade_schema(empty, SCHEMA, "zzz")


@pytest.mark.usefixtures("starts_processes")
def test_several_migrate_at_once(empty: DatabaseSettings) -> None:
    """Each of four processes succeeds; one applies, three find it done (create_all fails three of four)."""
    program = (
        "from arqonce.ledger.schema import upgrade_schemas; from arqonce.database.settings import DatabaseSettings; "
        "from jobs.registry import REGISTRY; upgrade_schemas(DatabaseSettings.load(), REGISTRY.schemas)"
    )
    environment = {"DATABASE_URL": empty.url.get_secret_value(), "PYTHONPATH": "."}

    processes = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(4)]

    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    for schema in (LEDGER, SCHEMA):
        check_migrations(empty, schema)


@pytest.mark.usefixtures("starts_processes")
def test_alembic_finds_its_settings_in_pyproject(empty: DatabaseSettings) -> None:
    """Developers use ``alembic`` itself for new migrations."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        env={"DATABASE_URL": empty.url.get_secret_value()},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "users" in _tables(empty)
