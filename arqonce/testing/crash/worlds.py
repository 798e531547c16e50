"""Worlds: places in which one crash is tried at a time, each with a database, a database of Redis and a folder."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import Column, MetaData, Table, TextClause, make_url, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from arqonce.connection.redis import build_redis
from arqonce.database.engine import ledger_options
from arqonce.database.settings import DatabaseSettings
from arqonce.namespace import LEDGER, in_namespace
from arqonce.settings.worker import QueueSettings, Settings, WorkerSettings
from arqonce.testing.databases import Migrate
from arqonce.wire.keys import QUEUE

LEASE = timedelta(seconds=1)
"""The shortest lease that the settings allow, by which each crash delays its job."""

MOST = 6
"""Most worlds. Redis has 16 databases by default; the first one is for other tests."""

_BOOKKEEPING = ["version_num"]
"""The columns of Alembic's version tables, which no job touches; the tables' names differ by project."""

_OTHER_SCHEMAS = text(
    "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg!_%' ESCAPE '!' "
    "AND nspname NOT IN ('information_schema', current_schema())"
)

_OF_LIVING = (b"arqonce:epoch:", b"arqonce:worker", b"arqonce:trend:", b"arqonce:pauses:")
"""Beginnings of keys in Redis without which a worker would believe that Redis was emptied."""

_ID_SPAN = 1_000_000
"""The ids of each table begin at another multiple of this, so that an id identifies its table."""


@dataclass(frozen=True, kw_only=True)
class Servers:
    """The servers of the worlds, which use databases ``crash_points_*`` in PostgreSQL and databases 1 to 6 in Redis.

    These remain at the end, and the next run recreates them. So only one test run may use the servers at a time.
    """

    database_url: str
    redis_url: str


@dataclass(frozen=True, kw_only=True)
class World:
    """One world. Its tables are all tables in its database."""

    settings: Settings
    engine: AsyncEngine
    redis: Redis
    tables: MetaData
    directory: Path

    def name_of(self, table: Table) -> str:
        """Return the table's name, qualified with its PostgreSQL schema; the ledger's is always called ``arqonce``."""
        if table.schema == self.settings.database.ledger_schema:
            return f"{LEDGER}.{table.name}"
        return table.fullname

    async def clear(self) -> None:
        """Empty the tables, Redis and the folder, but for what living workers say of themselves.

        Four round trips and the transaction's.
        """
        async with self.engine.begin() as connection:
            await connection.exec_driver_sql(_emptying(self.tables))
        if keys := [key for key in await self.redis.keys() if not key.startswith(_OF_LIVING)]:
            await self.redis.delete(*keys)
        for left in self.directory.iterdir():  # the folder stays, because workers work in it
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        self.directory.with_suffix(".log").unlink(missing_ok=True)

    async def owes_jobs(self) -> bool:
        """Return whether a promised job of the worker's queue is due, or is in Redis, and has not ended.

        One round trip.
        """
        async with self.engine.connect() as connection:
            return bool(await connection.scalar(self._text(_OWED), {"queue": QUEUE}))

    async def hasten_relay(self) -> None:
        """Make promises due that a relay may have marked and not written into Redis: it would wait for 30 s."""
        async with self.engine.begin() as connection:
            await connection.execute(self._text(_HASTEN))

    def _text(self, statement: str) -> TextClause:
        return text(in_namespace(statement, self.settings.database.ledger_schema))


_OWED = """
    SELECT EXISTS (SELECT FROM arqonce.outbox
        WHERE queue = :queue AND (dispatched_at IS NOT NULL OR give_at <= clock_timestamp()))
"""

_HASTEN = "UPDATE arqonce.outbox SET give_at = least(give_at, now()) WHERE dispatched_at IS NOT NULL"


def _emptying(tables: MetaData) -> str:
    """Return the statement that empties those tables that have rows: TRUNCATE creates new files for each of them.

    The lock waits for transactions of workers that were killed.
    """
    names = list(map(_quoted, tables.sorted_tables))
    lock = f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE;"
    emptied = [f"IF EXISTS (SELECT FROM {name}) THEN TRUNCATE {name} CASCADE; END IF;" for name in names]
    return "\n".join(["DO $_$ BEGIN", lock, *emptied, *_begins(tables), "END $_$"])


def _begins(tables: MetaData) -> list[str]:
    return [
        f"PERFORM setval(pg_get_serial_sequence('{_quoted(table)}', '{column.name}'), {number * _ID_SPAN}, false);"
        for number, table in enumerate(tables.sorted_tables, start=1)
        for column in table.primary_key
        if _is_numbered(column)
    ]


def _quoted(table: Table) -> str:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call] # SQLAlchemy's
    return dialect.identifier_preparer.format_table(table)


def _is_numbered(column: "Column[object]") -> bool:
    return column.identity is not None or "nextval" in str(getattr(column.server_default, "arg", ""))


class Worlds:
    """All worlds of a test run. The database of each is created when it is first needed."""

    def __init__(self, servers: Servers, directory: Path, migrate: Migrate) -> None:
        """Create nothing yet. ``migrate`` creates the tables in the template of all databases."""
        self._servers = servers
        self._directory = directory
        self._migrate = migrate
        self._made: list[str] = []
        self._tables: MetaData | None = None

    @asynccontextmanager
    async def open(self, number: int) -> AsyncIterator[World]:
        """Open world ``number``, from 1 to ``MOST``, in the running event loop."""
        settings = Settings(
            await self._database(f"{number}"),
            QueueSettings(url=SecretStr(self._servers.redis_url.rpartition("/")[0] + f"/{number}")),
            WorkerSettings(lease=LEASE, max_jobs=4, log_format="json"),
        )
        options = ledger_options(settings.database)
        engine = create_async_engine(settings.database.sqlalchemy_url, pool_size=1, execution_options=options)
        redis = build_redis(settings.queue.url.get_secret_value(), Redis)
        try:
            self._tables = self._tables or await _tables(engine)
            directory = self._directory / f"world-{number}"
            directory.mkdir(parents=True, exist_ok=True)
            await redis.flushdb()
            yield World(settings=settings, engine=engine, redis=redis, tables=self._tables, directory=directory)
        finally:
            await redis.aclose()
            await engine.dispose()

    async def _database(self, number: str) -> DatabaseSettings:
        settings, name = self._named(number)
        if name not in self._made:
            template, origin = self._named("template")
            if origin not in self._made:
                await self._create(f"{origin}")
                self._made.append(origin)
                await asyncio.to_thread(self._migrate, template)  # it runs its own event loop
            await self._create(f"{name} TEMPLATE {origin}")
            self._made.append(name)
        return settings

    def _named(self, suffix: str) -> tuple[DatabaseSettings, str]:
        name = f"crash_points_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{suffix}"
        url = make_url(self._servers.database_url).set(database=name)
        return DatabaseSettings(url=SecretStr(url.render_as_string(hide_password=False))), name

    async def _create(self, database: str) -> None:
        url = DatabaseSettings(url=SecretStr(self._servers.database_url)).sqlalchemy_url
        engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.execute(text(f"DROP DATABASE IF EXISTS {database.split(maxsplit=1)[0]} WITH (FORCE)"))
                await connection.execute(text(f"CREATE DATABASE {database}"))
        finally:
            await engine.dispose()


async def _tables(engine: AsyncEngine) -> MetaData:
    found = MetaData()
    async with engine.connect() as connection:
        for schema in (None, *await connection.scalars(_OTHER_SCHEMAS)):
            await connection.run_sync(found.reflect, schema=schema)
    for table in found.sorted_tables:
        if table.columns.keys() == _BOOKKEEPING:
            found.remove(table)
    return found
