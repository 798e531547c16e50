"""pytest plugin of users-jobs: the fixture ``enqueued``, for tests of code that enqueues, without Redis or a worker.

The package is imported when a test first uses it. Where users-worker is installed as well, its plugin has the fixture.
"""

import types
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from users_jobs.testing.enqueued import EnqueuedJobs

_WHOLE = "arqonce.testing.plugin"
"""The plugin of users-worker. Its ``enqueued`` records what either package enqueues."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixture, unless the other plugin does."""
    if not config.pluginmanager.hasplugin(_WHOLE):
        fixtures = types.ModuleType("pytest_users_jobs_fixtures")
        vars(fixtures)["enqueued"] = pytest.fixture(_record, name="enqueued")
        config.pluginmanager.register(fixtures)


def _record() -> "Iterator[EnqueuedJobs]":
    """Record what the code under test enqueues, in place of Redis."""
    from users_jobs.testing.enqueued import EnqueuedJobs
    from users_jobs.testing.stand_ins import stand_in_for_redis

    jobs = EnqueuedJobs()
    with stand_in_for_redis(jobs):
        yield jobs
