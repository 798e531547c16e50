"""An empty database for tests that migrate."""

from collections.abc import Iterator
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import make_url

from arqonce.database.settings import DatabaseSettings
from tests.rights import run_psql


@pytest.fixture
def empty(postgres_url: str) -> Iterator[DatabaseSettings]:
    """Make an empty database, and drop it after the test."""
    name = f"test_{uuid4().hex}"
    run_psql(postgres_url, "--command", f"CREATE DATABASE {name}")
    yield DatabaseSettings(
        url=SecretStr(make_url(postgres_url).set(database=name).render_as_string(hide_password=False))
    )
    run_psql(postgres_url, "--command", f"DROP DATABASE {name} WITH (FORCE)")
