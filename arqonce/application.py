"""Describes an application to the library: its jobs, its engine, its commands. Opens nothing."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.commands.listed import Command
from arqonce.database.engine import open_database
from arqonce.registries import load_registry
from arqonce.settings.worker import Settings, WorkerSettings
from arqonce.spec import Registry

__all__ = ["Application", "Lifespan", "Sessions", "Settings", "open_sessions"]

Sessions: TypeAlias = async_sessionmaker[AsyncSession]
Lifespan = Callable[[Settings], AbstractAsyncContextManager[Sessions]]


def open_sessions(settings: Settings) -> AbstractAsyncContextManager[Sessions]:
    """Open an engine with a pool as large as the worker needs; yield its sessionmaker; dispose of the engine."""
    return open_database(settings.database, pool_size=settings.pool_size)


@dataclass(frozen=True, kw_only=True)
class Application:
    """The description of a project that its workers and its command use."""

    name: str
    """The command's name, also used in errors. The default of PostgreSQL's ``application_name``."""

    registry: Registry = field(default_factory=Registry)
    """The jobs that its workers run, in addition to those of the registries in ``WORKER_REGISTRY``."""

    lifespan: Lifespan = open_sessions
    """Opens what jobs need when a worker starts, and closes it when the worker ends, even if the start failed.

    It yields the sessionmaker from which each job opens its session. The engine must come from
    ``arqonce.build_engine``, which isolates jobs from each other. It is entered in the worker's event loop.
    """

    commands: Mapping[str, Callable[..., Any] | Command] = field(default_factory=dict)
    """The application's own typer commands by name. One replaces the library's of the same name, except ``health``.

    A ``Command`` is imported when it is called, so that a worker does not load it.
    """

    description: str = "Background jobs that take effect exactly once."
    """First line of the command's help."""

    module: str = "arqonce"
    """The module that runs its command, as in ``python -m module``. ``dev`` uses it to start a worker."""

    checkout: Path | None = None
    """The folder that contains ``jobs/``, ``db/`` and ``tests/``, in which ``new-job`` writes."""

    def load(self) -> "Application":
        """Return the application with the registries of ``WORKER_REGISTRY`` added. Imports their modules.

        Raises:
            SettingsError: a setting is invalid, or a registry cannot be used.
        """
        registry = load_registry(WorkerSettings.load().registry, self.registry, owner=self.name)
        return replace(self, registry=registry)
