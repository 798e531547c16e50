"""Databases for tests: a template that is migrated once, and copies of it, which take some milliseconds each.

All functions may be called with or without a running event loop, because they work in a separate thread.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
from pydantic import SecretStr
from sqlalchemy import make_url

from arqonce.database.settings import DatabaseSettings
from arqonce.testing.environment import without_settings

T = TypeVar("T")
Migrate = Callable[[DatabaseSettings], object]
"""Creates the tables in an empty database."""


class Databases:
    """The template and its copies on one server. Processes of pytest-xdist may share the server."""

    def __init__(self, server_url: str, migrate: Migrate) -> None:
        """Create nothing yet."""
        self._server_url = server_url
        self._migrate = migrate
        self._template: str | None = None

    def create(self) -> DatabaseSettings:
        """Create a copy of the template; create the template first if necessary."""
        if self._template is None:
            name = _new_name("template")
            self._execute(f"CREATE DATABASE {name}")
            in_thread(self._migrate, self._settings(name))
            self._template = name
        name = _new_name("copy")
        self._execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self._settings(name)

    def drop(self, database: DatabaseSettings) -> None:
        """Drop a copy, even if clients are connected to it."""
        self._execute(f"DROP DATABASE {database.sqlalchemy_url.database} WITH (FORCE)")

    @contextmanager
    def copy(self) -> Iterator[DatabaseSettings]:
        """Yield a copy, and drop it at the end."""
        settings = self.create()
        try:
            yield settings
        finally:
            self.drop(settings)

    def close(self) -> None:
        """Drop the template."""
        if self._template is not None:
            self._execute(f"DROP DATABASE {self._template}")

    def _settings(self, name: str) -> DatabaseSettings:
        url = make_url(self._server_url).set(database=name)
        with without_settings():
            return DatabaseSettings(url=SecretStr(url.render_as_string(hide_password=False)))

    def _execute(self, statement: str) -> None:
        in_thread(asyncio.run, _execute(self._server_url, statement))


def _new_name(kind: str) -> str:
    return f"tests_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{kind}_{uuid4().hex[:12]}"


def in_thread(function: Callable[..., T], *arguments: Any) -> T:  # noqa: ANN401 - passed on
    """Call a function in a new thread, where it may run an event loop, and return its result."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(function, *arguments).result()


def _execute(url: str, statement: str) -> Coroutine[Any, Any, None]:
    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    return execute()
