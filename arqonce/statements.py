"""Runs one statement on the caller's connection, of SQLAlchemy, asyncpg, psycopg or Django. Knows no table.

Loads no driver: the caller's connection has loaded it.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Parameters = Mapping[str, str | Sequence[str]]


def statement_runner(connection: Any, *, is_async: bool) -> Any:  # noqa: ANN401 - one of three types of function
    """Return the function that runs a statement on the connection, and returns the first column of its first row.

    Raises:
        TypeError: the connection is of another type; the text names those that are supported.
    """
    classes = _names_of(connection)
    # Same modules as connections, but no transaction: a promise would survive the caller's rollback.
    makers = {"asyncpg.pool.Pool", "sqlalchemy.engine.base.Engine", "sqlalchemy.ext.asyncio.engine.AsyncEngine",
              "sqlalchemy.orm.session.sessionmaker", "sqlalchemy.ext.asyncio.session.async_sessionmaker"}  # fmt: skip
    found = [runs for prefix, *runs in _RUNNERS if any(name.startswith(prefix) for name in classes)]
    if makers.intersection(classes):
        found = []
    for run, run_sync in found:
        if runner := run if is_async else run_sync:
            return runner
    other = f". For this one use {'enqueue_in_sync' if is_async else 'enqueue_in'}" if found else ""
    raise TypeError(f"the connection must be {_KINDS[is_async]}; this is a {classes[0]}{other}")


def _names_of(thing: object) -> list[str]:
    """Return the full names of its class and of the bases."""
    return [f"{base.__module__}.{base.__qualname__}" for base in type(thing).__mro__]


_KINDS = {
    True: "SQLAlchemy's AsyncSession or AsyncConnection, asyncpg's connection or psycopg's AsyncConnection",
    False: "SQLAlchemy's Session or Connection, Django's connection, or the Connection of psycopg 3",
}


async def _run_sqlalchemy(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first((await _execute_of(connection)(text, parameters, execution_options=_NO_CURSOR)).first())


def _run_sqlalchemy_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first(_execute_of(connection)(text, parameters, execution_options=_NO_CURSOR).first())


_NO_CURSOR = {"stream_results": False, "yield_per": None}
"""Options in place of those of the engine, which may ask for a cursor of the server: such a one cannot write."""


def _execute_of(connection: Any) -> Any:  # noqa: ANN401 - see enqueue_in
    """Return its method ``execute``: of a session of SQLModel the one below SQLModel's own, which only warns."""
    classes = type(connection).__mro__
    others = [base for base in classes if not base.__module__.startswith("sqlmodel.")]
    if len(others) == len(classes):
        return connection.execute
    return next(vars(base)["execute"] for base in others if "execute" in vars(base)).__get__(connection)


async def _run_asyncpg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    numbered, values = _numbered(statement, parameters)
    return _first(await connection.fetchrow(numbered, *values))


def _numbered(statement: str, parameters: Parameters) -> tuple[str, list[str | Sequence[str]]]:
    """Return the statement with PostgreSQL's own parameters, ``$1``, and their values."""
    numbers = {name: number for number, name in enumerate(parameters, start=1)}
    return _NAME.sub(lambda match: f"${numbers[match[1]]}", statement), list(parameters.values())


async def _run_psycopg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    async with connection.cursor(row_factory=_tuples()) as cursor:
        await cursor.execute(*_for_cursor(cursor, statement, parameters))
        return _first(await cursor.fetchone())


def _run_psycopg_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    with connection.cursor(row_factory=_tuples()) as cursor:
        cursor.execute(*_for_cursor(cursor, statement, parameters))
        return _first(cursor.fetchone())


def _for_cursor(cursor: Any, statement: str, parameters: Parameters) -> tuple[str, Any]:  # noqa: ANN401 - psycopg's
    """Return both as the class of cursors wants them, which the connection's ``cursor_factory`` has chosen."""
    if "psycopg.raw_cursor.RawCursorMixin" in _names_of(cursor):
        return _numbered(statement, parameters)
    return _NAME.sub(r"%(\1)s", statement), parameters


def _run_django(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    with connection.cursor() as cursor:  # connects first, which connection.connection does not
        cursor.execute(_NAME.sub(r"%(\1)s", statement), parameters)
        return _first(cursor.fetchone())


def _tuples() -> Any:  # noqa: ANN401 - psycopg's
    """Return psycopg's tuple row factory: the connection's own may return rows of any type."""
    return importlib.import_module("psycopg.rows").tuple_row


def _first(row: Any) -> str | None:  # noqa: ANN401 - a row of any library
    if row is None:
        return None
    # psycopg returns bytes where the encoding is SQL_ASCII; statuses, outcomes and ids are ASCII
    return row[0].decode() if isinstance(row[0], bytes) else str(row[0])


_NAME = re.compile(r":([a-z_]+)")

_RUNNERS: tuple[tuple[str, Any, Any], ...] = (
    ("sqlalchemy.ext.asyncio.", _run_sqlalchemy, None),
    ("sqlalchemy.orm.", None, _run_sqlalchemy_sync),
    ("sqlalchemy.engine.", None, _run_sqlalchemy_sync),
    ("asyncpg.", _run_asyncpg, None),
    ("psycopg.AsyncConnection", _run_psycopg, None),
    ("psycopg.Connection", None, _run_psycopg_sync),
    ("django.utils.connection.ConnectionProxy", None, _run_django),
    ("django.db.backends.base.base.BaseDatabaseWrapper", None, _run_django),
)
"""Functions that run the statement, async and sync, by a prefix of the name of the connection's class or of a base."""


_CURES = {
    "42P01": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "3F000": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "42501": "let this role promise jobs: GRANT app_producer TO it (deploy/postgres/roles.sql); app_worker may since "
    "grants.sql has run. Or a policy of row-level security is on the ledger's tables, which need none",
    "25006": "this transaction may only read: promise in another one. Or the server is a standby",
    "UnboundExecutionError": "a session with several databases does not know which is meant: pass its connection to "
    "the workers', session.connection(bind_arguments={'mapper': a mapped class that is stored there})",
}
"""The cure for an error, by its SQLSTATE or the name of its class."""


@contextmanager
def cures_named() -> Iterator[None]:
    """Add the cure as a note to a driver's error. Its type stays the same: callers may catch it."""
    try:
        yield
    except Exception as error:
        for known in (error, getattr(error, "orig", None), error.__cause__):
            names = (getattr(known, "sqlstate", None), getattr(known, "pgcode", None), type(known).__name__)
            if cure := next((_CURES[name] for name in names if name in _CURES), None):
                error.add_note(cure)
                break
        raise
