"""An empty database for tests that migrate, and statements on it without the engine."""

import asyncio
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from arqonce.database.settings import DatabaseSettings
from arqonce.testing.databases import in_thread


@pytest.fixture
def empty(postgres_url: str) -> Iterator[DatabaseSettings]:
    """Make an empty database, and drop it after the test."""
    name, server = f"test_{uuid4().hex}", DatabaseSettings(url=SecretStr(postgres_url))
    run_sql(server, f"CREATE DATABASE {name}")
    url = make_url(postgres_url).set(database=name)
    yield DatabaseSettings(url=SecretStr(url.render_as_string(hide_password=False)))
    run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def run_sql(settings: DatabaseSettings, statements: str) -> None:
    """Run one or several statements."""
    in_thread(asyncio.run, _run(settings, statements, rows=False))


def read_sql(settings: DatabaseSettings, query: str) -> list[object]:
    """Return the first column of the rows."""
    return in_thread(asyncio.run, _run(settings, query, rows=True))


async def _run(settings: DatabaseSettings, statements: str, *, rows: bool) -> list[object]:
    connection = await asyncpg.connect(settings.url.get_secret_value())
    try:
        if rows:
            return [row[0] for row in await connection.fetch(statements)]
        await connection.execute(statements)
        return []
    finally:
        await connection.close()
