"""The fixtures are those of users-worker's pytest plugin, with the shop's jobs and tables added."""

import pytest

from arqonce.ledger.schema import upgrade_schemas
from arqonce.registries import load_registry
from arqonce.spec import Registry
from arqonce.testing.databases import Migrate


@pytest.fixture(scope="session")
def jobs_registry() -> Registry:
    """Let tests run the shop's jobs, and those of users-worker."""
    return load_registry("shop.jobs:REGISTRY")


@pytest.fixture(scope="session")
def jobs_migrate(jobs_registry: Registry) -> Migrate:
    """Make the tables of both."""
    return lambda settings: upgrade_schemas(settings, jobs_registry.schemas)
