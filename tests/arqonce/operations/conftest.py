"""Fixtures of the faults that probes are asked in."""

from tests.faults.conftest import postgres_proxy, redis_proxy  # noqa: F401 - fixtures
