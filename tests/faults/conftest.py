"""Servers behind a proxy that can be made to fail, and servers that belong to one test."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from arqonce.database.settings import DatabaseSettings
from arqonce.embedded import ValkeyServer, open_valkey
from tests.faults.proxy import Proxy, open_proxy


@pytest.fixture
def valkey(tmp_path: Path, starts_processes: None) -> Iterator[ValkeyServer]:  # noqa: ARG001 - it says so
    """Start a Valkey that the test may spoil."""
    with open_valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def redis_proxy(valkey_url: str) -> Iterator[Proxy]:
    """Open a proxy before the Valkey of all tests."""
    with open_proxy(urlsplit(valkey_url).port or 0) as proxy:
        proxy.environment = {"REDIS_URL": f"redis://127.0.0.1:{proxy.port}/0"}
        yield proxy


@pytest.fixture
def postgres_proxy(database: DatabaseSettings) -> Iterator[Proxy]:
    """Open a proxy before the PostgreSQL of all tests."""
    url = database.url.get_secret_value()
    port = urlsplit(url).port or 0
    with open_proxy(port) as proxy:
        proxy.environment = {"DATABASE_URL": url.replace(f":{port}/", f":{proxy.port}/")}
        yield proxy
