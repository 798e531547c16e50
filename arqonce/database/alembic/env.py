"""Runs migrations with an async engine. Alembic's entry point: ``alembic`` reads it through ``pyproject.toml``.

Serves other projects as well, whose ``pyproject.toml`` names their ``Schema``: they have no environment of their own.
"""

import asyncio
import pkgutil
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

from alembic import context
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationInfo
from sqlalchemy import Connection, text

from arqonce.database.engine import build_engine
from arqonce.database.schema import Schema, require_own_revisions, revisions
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_primary

_PATIENCE = {"statement_timeout": timedelta(hours=12), "command_timeout": timedelta(hours=13)}
"""An index of a large table takes hours, and so does waiting for somebody who makes it."""

_LOCK = 0x75736572735F776F  # "users_wo": any number that nobody else uses
"""Advisory lock of the database: several ``migrate`` at once run one after the other."""


def _find_schema() -> Schema:
    """Return whose migrations these are: as the caller says, or ``schema = "module:NAME"`` in pyproject.toml."""
    config = context.config
    named = config.attributes.get("schema") or config.get_alembic_option("schema")
    schema = pkgutil.resolve_name(named) if isinstance(named, str) else named
    if not isinstance(schema, Schema):
        raise TypeError(f"[tool.alembic] schema = {named!r} is no arqonce.Schema")
    return schema


_SCHEMA = _find_schema()


def _number(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
    """Name a new revision with the next number: workers tell by it whether a database is behind."""
    for script in directives:
        script.rev_id = f"{int((revisions(_SCHEMA) or ['0'])[-1]) + 1:04}"


_PLACES = {table.schema for table in _SCHEMA.metadata.tables.values()}
"""The PostgreSQL schemas of the project's tables; ``None`` is the first one of ``search_path``."""


def _is_compared(name: str | None, kind: str, parents: MutableMapping[Any, str | None]) -> bool:
    """Leave schemas and tables that this project does not know out of its comparison: they are somebody else's."""
    if kind == "schema":
        return name in _PLACES
    return kind != "table" or parents["schema_qualified_table_name"] in _SCHEMA.metadata.tables


def _make_namespace() -> None:
    """Make the PostgreSQL schema of the version table, which Alembic makes before the first migration.

    Not with IF NOT EXISTS: that takes the right to make schemas also where there is nothing to make.
    """
    if (name := _SCHEMA.namespace) is not None:
        context.execute(
            f"DO $$ BEGIN IF to_regnamespace('{name}') IS NULL THEN CREATE SCHEMA \"{name}\"; END IF; END $$"
        )


def _note(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:  # noqa: ARG001 - Alembic's names
    """Tell the caller what was applied."""
    context.config.attributes.get("applied", []).append(step.up_revision_id)


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=_SCHEMA.metadata,
        version_table=_SCHEMA.version_table,
        version_table_schema=_SCHEMA.namespace,
        include_schemas={None} != _PLACES,
        include_name=_is_compared,
        process_revision_directives=_number,
        on_version_apply=_note,
    )
    with context.begin_transaction():
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _make_namespace()
        require_own_revisions(context.get_context().get_current_heads(), _SCHEMA)
        context.run_migrations()


async def _migrate_online(settings: DatabaseSettings) -> None:
    engine = build_engine(settings.model_copy(update=_PATIENCE), pool_size=1)
    try:
        async with engine.connect() as connection:
            await require_primary(connection)
            await connection.rollback()
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


def _print_sql() -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=_SCHEMA.metadata,
        version_table=_SCHEMA.version_table,
        version_table_schema=_SCHEMA.namespace,
        literal_binds=True,
    )
    with context.begin_transaction():
        _make_namespace()
        context.run_migrations()


if context.is_offline_mode():
    _print_sql()
else:
    asyncio.run(_migrate_online(context.config.attributes.get("database") or DatabaseSettings.load()))
