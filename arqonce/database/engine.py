"""Creates and closes the engine and the shared sessionmaker. Knows no table and no job."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from arqonce.database.connecting import Connector
from arqonce.database.limits import IDLE_LIMIT, KEEPALIVE, idle_limit, milliseconds
from arqonce.database.loans import LendingPool, current_loan
from arqonce.database.pipelining import PipeliningDriver
from arqonce.database.settings import DatabaseSettings
from arqonce.database.wrong_servers import drop_closed, drop_wrong_servers
from arqonce.namespace import LEDGER

_POOL_TIMEOUT = timedelta(seconds=5)
"""Longest wait for a free connection. A worker never runs more jobs than it has connections, so a wait is a fault."""


@asynccontextmanager
async def open_database(
    settings: DatabaseSettings, *, pool_size: int
) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Yield the shared sessionmaker over a pool of at most ``pool_size`` connections; dispose the pool at the end.

    A worker's is ``Settings.pool_size``, in ``arqonce/settings/worker.py``. Opens no connection: the first session
    does. ORM objects stay readable after commit.
    """
    engine = build_engine(settings, pool_size=pool_size)
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


def build_engine(settings: DatabaseSettings, *, pool_size: int) -> AsyncEngine:
    """Construct the engine. No overflow: the pool's size is the limit. No pre-ping: failed attempts are retried.

    A connection that was closed while it was idle is replaced when somebody takes it. The engine connects to a server
    that can be written to, unless the URL requests another, and drops connections to one that can no longer be.
    """
    engine = create_async_engine(
        settings.sqlalchemy_url,
        module=PipeliningDriver(asyncpg),
        poolclass=LendingPool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=_POOL_TIMEOUT.total_seconds(),
        pool_use_lifo=True,  # a worker with little load keeps few connections warm
        hide_parameters=True,  # parameters are personal data
        connect_args=_connect_arguments(settings),
        execution_options=ledger_options(settings),
    )
    drop_wrong_servers(engine.sync_engine)
    drop_closed(engine.sync_engine)
    # SQLAlchemy reads a private attribute here. Our property notes that a handler has got the driver's connection.
    engine.dialect.get_driver_connection = attrgetter("driver_connection")  # type: ignore[method-assign, assignment]
    if settings.pgbouncer:
        _limit_each_transaction(engine, settings)
    return engine


def ledger_options(settings: DatabaseSettings) -> dict[str, Any]:
    """Return the engine options that select the ledger's schema; empty for the default schema, which costs nothing.

    A project that creates its own engine must pass them: ``create_async_engine(..., execution_options=...)``.
    """
    if settings.ledger_schema == LEDGER:
        return {}
    return {"schema_translate_map": {LEDGER: settings.ledger_schema}}


def _connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "async_creator_fn": Connector(settings.hosts, settings.target_session_attrs),
        "timeout": settings.connect_timeout.total_seconds(),
        "command_timeout": settings.command_timeout.total_seconds(),
        "server_settings": {"application_name": settings.application_name},
    }
    if settings.tls_files:
        # asyncpg reads these only from a DSN. The URL's other parts are passed as arguments, which take precedence.
        arguments["dsn"] = f"postgresql:///?{urlencode(settings.tls_files)}"
    if settings.pgbouncer:
        # Transactions move between server connections, so no prepared statement may outlive a transaction, and two
        # clients must never use the same name (SQLAlchemy manual, "Prepared Statement Name with PGBouncer").
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
        }
    else:
        arguments["server_settings"] |= _timeouts(settings, IDLE_LIMIT) | KEEPALIVE
    return arguments


def _timeouts(settings: DatabaseSettings, idle: timedelta) -> dict[str, str]:
    return {
        "statement_timeout": milliseconds(settings.statement_timeout),
        "idle_in_transaction_session_timeout": milliseconds(idle),
    }


def _limit_each_transaction(engine: AsyncEngine, settings: DatabaseSettings) -> None:
    # PgBouncer rejects these as start-up parameters; setting them costs one round trip per transaction.
    @event.listens_for(engine.sync_engine, "begin")
    def _limit(connection: Connection) -> None:
        loan = current_loan()
        timeouts = _timeouts(settings, IDLE_LIMIT if loan is None else idle_limit(loan.lasts))
        calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in timeouts.items())
        connection.exec_driver_sql(f"SELECT {calls}")
