"""The fixtures are those of users-worker's pytest plugin, with the shop's jobs and tables added."""

from collections.abc import Callable

import pytest

from db.migrate import upgrade_schemas
from db.settings import DatabaseSettings
from jobs.extensions import load_registry
from jobs.registry import Registry


@pytest.fixture(scope="session")
def jobs_registry() -> Registry:
    """Let tests run the shop's jobs, and those of users-worker."""
    return load_registry("shop.jobs:REGISTRY")


@pytest.fixture(scope="session")
def jobs_migrate(jobs_registry: Registry) -> Callable[[DatabaseSettings], None]:
    """Make the tables of both."""
    return lambda settings: upgrade_schemas(settings, jobs_registry.schemas)
