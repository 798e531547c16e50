"""Runs one statement on the caller's connection, of SQLAlchemy, asyncpg or psycopg. Knows no table.

Loads no driver: the caller's connection has loaded it.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Parameters = Mapping[str, str | bytes | Sequence[str | bytes]]


def statement_runner(connection: Any, *, is_async: bool) -> Any:  # noqa: ANN401 - one of three types of function
    """Return the function that runs a statement on the connection, and returns the first column of its first row.

    Raises:
        TypeError: the connection is of another type; the text names those that are supported.
    """
    classes = [f"{base.__module__}.{base.__qualname__}" for base in type(connection).__mro__]
    # Same modules as connections, but no transaction: a promise would survive the caller's rollback.
    makers = {"asyncpg.pool.Pool", "sqlalchemy.engine.base.Engine", "sqlalchemy.ext.asyncio.engine.AsyncEngine",
              "sqlalchemy.orm.session.sessionmaker", "sqlalchemy.ext.asyncio.session.async_sessionmaker"}  # fmt: skip
    for prefix, run, run_sync in () if makers.intersection(classes) else _RUNNERS:
        if any(name.startswith(prefix) for name in classes) and (run if is_async else run_sync):
            return run if is_async else run_sync
    taken, other = _KINDS[is_async], "enqueue_in_sync" if is_async else "enqueue_in"
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    raise TypeError(f"the connection must be {taken}; this is a {kind}. For the other kind use {other}")


_KINDS = {
    True: "SQLAlchemy's AsyncSession or AsyncConnection, asyncpg's connection or psycopg's AsyncConnection",
    False: "SQLAlchemy's Session or Connection, or psycopg's Connection (in Django connection.connection, in atomic())",
}


async def _run_sqlalchemy(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first((await _execute_of(connection)(text, parameters)).first())


def _run_sqlalchemy_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    text = importlib.import_module("sqlalchemy").text(statement)
    return _first(_execute_of(connection)(text, parameters).first())


def _execute_of(connection: Any) -> Any:  # noqa: ANN401 - see enqueue_in
    """Return its method ``execute``: of a session of SQLModel the one below SQLModel's own, which only warns."""
    classes = type(connection).__mro__
    others = [base for base in classes if not base.__module__.startswith("sqlmodel.")]
    if len(others) == len(classes):
        return connection.execute
    return next(vars(base)["execute"] for base in others if "execute" in vars(base)).__get__(connection)


async def _run_asyncpg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    numbers = {name: number for number, name in enumerate(parameters, start=1)}
    numbered = _NAME.sub(lambda match: f"${numbers[match[1]]}", statement)
    return _first(await connection.fetchrow(numbered, *parameters.values()))


async def _run_psycopg(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    # %b: psycopg writes bytes in an array as text that a server with standard_conforming_strings=off misreads.
    async with connection.cursor(row_factory=_tuples()) as cursor:
        await cursor.execute(_NAME.sub(r"%(\1)b", statement), parameters)
        return _first(await cursor.fetchone())


def _run_psycopg_sync(connection: Any, statement: str, parameters: Parameters) -> str | None:  # noqa: ANN401 - see enqueue_in
    with connection.cursor(row_factory=_tuples()) as cursor:
        cursor.execute(_NAME.sub(r"%(\1)b", statement), parameters)
        return _first(cursor.fetchone())


def _tuples() -> Any:  # noqa: ANN401 - psycopg's
    """Return psycopg's tuple row factory: the connection's own may return rows of any type."""
    return importlib.import_module("psycopg.rows").tuple_row


def _first(row: Any) -> str | None:  # noqa: ANN401 - a row of any library
    return None if row is None else str(row[0])


_NAME = re.compile(r":([a-z_]+)")

_RUNNERS: tuple[tuple[str, Any, Any], ...] = (
    ("sqlalchemy.ext.asyncio.", _run_sqlalchemy, None),
    ("sqlalchemy.orm.", None, _run_sqlalchemy_sync),
    ("sqlalchemy.engine.", None, _run_sqlalchemy_sync),
    ("asyncpg.", _run_asyncpg, None),
    ("psycopg.AsyncConnection", _run_psycopg, None),
    ("psycopg.Connection", None, _run_psycopg_sync),
)
"""Functions that run the statement, async and sync, by a prefix of the name of the connection's class or of a base."""


_CURES = {
    "42P01": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "3F000": "is this the workers' database, and does it have their tables? Run the command migrate there",
    "42501": "let this role promise jobs: GRANT app_producer TO it (deploy/postgres/roles.sql); app_worker may since "
    "grants.sql has run. Or a policy of row-level security is on the ledger's tables, which need none",
}
"""The cure for an error, by its SQLSTATE."""


@contextmanager
def cures_named() -> Iterator[None]:
    """Add the cure as a note to a driver's error. Its type stays the same: callers may catch it."""
    try:
        yield
    except Exception as error:
        for known in (error, getattr(error, "orig", None), error.__cause__):
            if cure := _CURES.get(getattr(known, "sqlstate", None) or ""):
                error.add_note(cure)
                break
        raise
