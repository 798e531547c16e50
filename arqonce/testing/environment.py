"""The environment of tests: without whatever settings of ours (``DATABASE_*`` and the like) the developer has."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PREFIXES = ("DATABASE_", "REDIS_", "WORKER_", "WEB_")


def is_setting(name: str) -> bool:
    """Say whether this variable would set something of ours."""
    return name.startswith(_PREFIXES) or name == "SECRETS_DIR"


def clean_environment() -> dict[str, str]:
    """Return the environment without our settings."""
    return {name: value for name, value in os.environ.items() if not is_setting(name)}


@contextmanager
def without_settings() -> Iterator[None]:
    """Take our settings out of the environment for a while."""
    taken = {name: os.environ.pop(name) for name in list(os.environ) if is_setting(name)}
    try:
        yield
    finally:
        os.environ.update(taken)
