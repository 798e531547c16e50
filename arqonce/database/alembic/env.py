"""Runs migrations with an async engine. Alembic's entry point: ``alembic`` finds it through ``pyproject.toml``.

Other projects use it, too: their ``pyproject.toml`` names their ``Schema``, so they need no environment of their own.
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
from arqonce.database.schema import (
    LOST,
    Schema,
    own_columns,
    require_all,
    require_own_revisions,
    require_utf8,
    revisions,
)
from arqonce.database.settings import DatabaseSettings
from arqonce.database.writability import require_primary
from arqonce.environment import SettingsError

_PATIENCE = {"statement_timeout": timedelta(hours=12), "command_timeout": timedelta(hours=13)}
"""Building an index of a large table takes hours, and so does waiting for another session that builds it."""

_LOCK = 0x75736572735F776F  # "users_wo": an arbitrary number that nothing else uses
"""Advisory lock that serializes concurrent ``migrate`` commands on a database."""


def _find_schema() -> Schema:
    """Return the schema to migrate: the caller's, or that of ``schema = "module:NAME"`` in pyproject.toml."""
    config = context.config
    named = config.attributes.get("schema") or config.get_alembic_option("schema")
    schema = pkgutil.resolve_name(named) if isinstance(named, str) else named
    if not isinstance(schema, Schema):
        raise TypeError(f"[tool.alembic] schema = {named!r} is no arqonce.Schema")
    return schema


_SCHEMA = _find_schema()


def _number(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
    """Assign the next number to a new revision: workers compare numbers to see whether a database is behind."""
    for script in directives:
        script.rev_id = f"{int((revisions(_SCHEMA) or ['0'])[-1]) + 1:04}"


_PLACES = {table.schema for table in _SCHEMA.metadata.tables.values()}
"""The PostgreSQL schemas of the project's tables; ``None`` is the first one of ``search_path``."""


def _is_compared(name: str | None, kind: str, parents: MutableMapping[Any, str | None]) -> bool:
    """Exclude schemas and tables that this project does not define from autogenerate: they belong to others."""
    if kind == "schema":
        return name in _PLACES
    return kind != "table" or parents["schema_qualified_table_name"] in _SCHEMA.metadata.tables


def _make_namespace() -> None:
    """Create the PostgreSQL schema of the version table, which Alembic creates before the first migration.

    Without IF NOT EXISTS, which needs the CREATE privilege even if the schema exists.
    """
    if (name := _SCHEMA.namespace) is not None:
        context.execute(
            f"DO $$ BEGIN IF to_regnamespace('{name}') IS NULL THEN CREATE SCHEMA \"{name}\"; END IF; END $$"
        )


def _note(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:  # noqa: ARG001 - Alembic's names
    """Add the applied revision to the caller's list."""
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
        require_utf8(connection.scalar(text("SHOW server_encoding")))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        _make_namespace()
        require_own_revisions(context.get_context().get_current_heads(), _SCHEMA)
        context.run_migrations()
        is_ours = "applied" in context.config.attributes  # else it may be --autogenerate, for what the database lacks
        if is_ours and context.get_context().get_current_heads() == (*revisions(_SCHEMA)[-1:],):
            require_all(connection.execute(LOST, own_columns(_SCHEMA)).all(), _SCHEMA)


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


def _settings() -> DatabaseSettings:
    """Read the settings, for the command ``alembic``, which would print a traceback of 30 lines."""
    try:
        return DatabaseSettings.load()
    except SettingsError as error:
        raise SystemExit(f"alembic: {error}") from None


if context.is_offline_mode():
    _print_sql()
else:
    asyncio.run(_migrate_online(context.config.attributes.get("database") or _settings()))
