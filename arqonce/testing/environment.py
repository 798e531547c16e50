"""The environment of tests, without the developer's settings of this library (``DATABASE_*`` and so on)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PREFIXES = ("DATABASE_", "REDIS_", "WORKER_", "WEB_", "OPS_", "CONSOLE_")


def is_setting(name: str) -> bool:
    """Return whether this environment variable is a setting of this library."""
    return name.startswith(_PREFIXES) or name == "SECRETS_DIR"


def clean_environment() -> dict[str, str]:
    """Return the environment without our settings."""
    return {name: value for name, value in os.environ.items() if not is_setting(name)}


@contextmanager
def without_settings() -> Iterator[None]:
    """Remove our settings from the environment within the context."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if is_setting(name)}
    try:
        yield
    finally:
        os.environ.update(taken)
