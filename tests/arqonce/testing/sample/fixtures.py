"""How a project with a table and a job of its own sets the plugin up."""

import asyncio
import os
from typing import Any

import asyncpg
import pytest
from notes import JOBS

from arqonce.database.settings import DatabaseSettings
from arqonce.ledger.schema import upgrade_schemas
from jobs.registry import REGISTRY

if "SAMPLE_POSTGRES_URL" in os.environ:

    @pytest.fixture(scope="session")
    def jobs_postgres_url() -> str:
        """Use a server that runs already."""
        return os.environ["SAMPLE_POSTGRES_URL"]


@pytest.fixture(scope="session")
def jobs_registry() -> Any:  # noqa: ANN401 - a Registry
    """Know our jobs, too."""
    return JOBS


@pytest.fixture(scope="session")
def jobs_migrate() -> Any:  # noqa: ANN401 - a function
    """Make our table, too."""

    def migrate(settings: DatabaseSettings) -> None:
        upgrade_schemas(settings, REGISTRY.schemas)
        asyncio.run(_make_table(settings.url.get_secret_value()))

    return migrate


async def _make_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY, words text NOT NULL)")
    await connection.close()
