"""What a project tells the library: its jobs, its engine, its commands. Opens nothing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.database.engine import open_database
from arqonce.registries import load_registry
from arqonce.settings.worker import Settings, WorkerSettings
from arqonce.spec import Registry

__all__ = ["Application", "Lifespan", "Sessions", "Settings", "open_sessions"]

Sessions: TypeAlias = async_sessionmaker[AsyncSession]
Lifespan = Callable[[Settings], AbstractAsyncContextManager[Sessions]]


def open_sessions(settings: Settings) -> AbstractAsyncContextManager[Sessions]:
    """Yield a sessionmaker over an engine of the library's, as large as the worker needs it, and dispose it."""
    return open_database(settings.database, pool_size=settings.pool_size)


@dataclass(frozen=True, kw_only=True)
class Application:
    """A project, as its workers and its command see it."""

    name: str
    """Of the command, in errors, and in PostgreSQL the ``application_name`` unless a setting names another."""

    registry: Registry = field(default_factory=Registry)
    """The jobs that its workers run, beside those that ``WORKER_REGISTRY`` names."""

    lifespan: Lifespan = open_sessions
    """Opens what jobs need when a worker starts, and closes it when the worker ends, also after a failed start.

    It yields the sessionmaker from which each job opens its session, over an engine made by ``arqonce.build_engine``,
    which keeps jobs apart. It is entered in the worker's event loop.
    """

    commands: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    """Commands of its own, as typer takes them, by name. One of a library's name replaces that, but for ``health``."""

    description: str = "Background jobs that take effect exactly once."
    """First line of the command's help."""

    module: str = "arqonce"
    """The module that runs its command, as in ``python -m module``: ``dev`` starts a worker by it."""

    checkout: Path | None = None
    """Where ``new-job`` may write: the folder with ``jobs/``, ``db/`` and ``tests/``."""

    def load(self) -> "Application":
        """Return the application with the jobs that ``WORKER_REGISTRY`` names; imports their modules.

        Raises:
            SettingsError: a setting is wrong, or a registry cannot be used.
        """
        registry = load_registry(WorkerSettings.load().registry, self.registry, owner=self.name)
        return replace(self, registry=registry)
