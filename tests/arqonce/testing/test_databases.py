"""Databases for tests: migrated once, copied for each who may commit."""

import asyncpg
import pytest
from sqlalchemy import make_url

from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import LEDGER, upgrade_schemas
from arqonce.testing.databases import Databases, in_thread
from jobs.registry import REGISTRY
from tests.arqonce.ledger.alembic_checks import check_migrations


async def _query(settings: DatabaseSettings, statement: str) -> object:
    connection = await asyncpg.connect(settings.url.get_secret_value())
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def test_a_copy_is_migrated_and_nobody_elses(postgres_url: str) -> None:
    """The migrations run once; what one copy gets, the next has not."""
    migrated = []

    def migrate(settings: DatabaseSettings) -> None:
        migrated.append(settings.location)
        upgrade_schemas(settings, REGISTRY.schemas)

    databases = Databases(postgres_url, migrate)
    with databases.copy() as first:
        await _query(first, "INSERT INTO users (name) VALUES ('Jane')")
        with databases.copy() as second:
            for schema in (LEDGER, *REGISTRY.schemas):
                in_thread(check_migrations, second, schema)
            counts = [await _query(copy, "SELECT count(*) FROM users") for copy in (first, second)]
    databases.close()

    assert (len(migrated), counts) == (1, [1, 0])


async def test_nothing_of_it_stays(postgres_url: str) -> None:
    """Neither template nor copies, also if somebody is still connected to one."""
    databases = Databases(postgres_url, lambda _settings: None)
    with databases.copy() as copy:
        connection = await asyncpg.connect(copy.url.get_secret_value())
    databases.close()
    connection.terminate()

    server = DatabaseSettings(url=copy.url.__class__(postgres_url))
    name = make_url(copy.url.get_secret_value()).database
    assert await _query(server, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == 0  # noqa: S608 - ours


async def test_a_copy_takes_no_settings_from_the_environment(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A developer's password for another server is not used."""
    monkeypatch.setenv("DATABASE_PASSWORD", "wrong")
    databases = Databases(postgres_url, lambda _settings: None)
    with databases.copy() as copy:
        assert copy.password is None
    databases.close()
