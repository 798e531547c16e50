"""Describes a project's tables and migrations, and checks that a database has them all.

Does not import Alembic, because each worker checks this at start-up.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.namespace import LEDGER

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class SchemaError(RuntimeError):
    """This version of the code cannot work with the database's tables; the text names the cure."""


class SchemaBehindError(SchemaError):
    """The database lacks migrations that this version of the code needs."""


class ForeignRevisionError(SchemaError):
    """The version table belongs to another project: this project has no revision like the stored one."""


class LostTableError(SchemaError):
    """Somebody has removed a table, or restored the database without it."""


class OldLedgerError(SchemaError):
    """The database has a ledger of an old version, whose own code must first apply its remaining migrations."""


@dataclass(frozen=True)
class Schema:
    """The tables of one project, and the migrations that create them.

    Raises:
        ValueError: ``name`` or ``namespace`` has other characters than those allowed.
    """

    name: str
    """Name of the project: up to 40 lower-case letters, digits and underscores."""

    metadata: MetaData
    """Metadata of the project's own declarative base."""

    migrations: Path
    """Folder of the migrations. File names begin with the revision's number: ``0001_orders.py`` is ``0001``."""

    version_table: str = "alembic_version"
    """Table in which Alembic records the applied revision. Each project in a database needs its own."""

    namespace: str | None = None
    """PostgreSQL schema of the version table, created before the first migration: lower-case letters, digits and
    underscores.

    By default the first schema of ``search_path``, usually ``public``. ``metadata`` determines the tables' schema.
    """

    def __post_init__(self) -> None:
        """Check the names, which become identifiers in PostgreSQL."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the schema's name {self.name!r} must be 1 to 40 of a-z, 0-9 and _, the first a letter")
        if self.namespace is not None and not _NAME.fullmatch(self.namespace.lstrip("_")):
            raise ValueError(f"the namespace {self.namespace!r} must be 1 to 40 of a-z, 0-9 and _")

    @property
    def version_place(self) -> str:
        """The version table, qualified with ``namespace`` if there is one."""
        return self.version_table if self.namespace is None else f"{self.namespace}.{self.version_table}"


def revisions(schema: Schema) -> list[str]:
    """Return the revisions that this code has, oldest first."""
    return sorted(file.name.split("_")[0] for file in schema.migrations.glob("[0-9]*.py"))


def why_no_revisions(schema: Schema) -> str:
    """Return why this code has no migrations of the schema, with the cure if they were left behind."""
    if schema.migrations.is_dir():
        return f"there are no files 0001_*.py in {schema.migrations}"
    return (
        f"there is no folder {schema.migrations}: let the installed package contain it (setuptools leaves out folders "
        "without an __init__.py from a list of packages), and not inside an archive"
    )


class WrongEncodingError(SchemaError):
    """The database cannot store text in every script; the text names the cure."""


def require_utf8(encoding: object) -> None:
    """Return if this is the encoding of a database that can store any text, as ``SHOW server_encoding`` tells it.

    Raises:
        WrongEncodingError: it is another.
    """
    if encoding != "UTF8":
        raise WrongEncodingError(
            f"the database has the encoding {encoding}, which cannot store text in every script: make one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )


async def has_schema(sessions: async_sessionmaker[AsyncSession], schema: Schema) -> bool:
    """Return whether any migration of this schema has been applied. Up to two round trips."""
    async with sessions() as session:
        return bool(await _stored(session, schema))


async def require_current_schemas(sessions: async_sessionmaker[AsyncSession], schemas: Iterable[Schema]) -> None:
    """Return if the database has every migration of this code. It may have newer ones: deploys migrate first.

    Up to five round trips for the first schema, three for each further one.

    Raises:
        WrongEncodingError: the database cannot store every text.
        SchemaBehindError: migrations are missing, there or here; the text names the cure.
        ForeignRevisionError: a version table has a revision that only another project can have written.
        LostTableError: a table is not there, although its migrations are applied.
    """
    async with sessions() as session:
        require_utf8(await session.scalar(text("SHOW server_encoding")))
        for schema in schemas:
            stored = await _stored(session, schema)
            if missing := _missing(stored, schema):
                raise SchemaBehindError(
                    f"the database lacks {len(missing)} of the migrations of {schema.name} (first: {missing[0]}). "
                    "Apply them with the command migrate"
                )
            if stored.intersection(revisions(schema)[-1:]):  # else another version of the code knows the tables
                require_all(await _lost(session, schema), schema)
            elif not schema.migrations.is_dir() and (lost := await _lost(session, schema)):
                raise SchemaBehindError(
                    f"the database lacks the table {lost[0][0]} of {schema.name}, or its column {lost[0][1]}, and this "
                    f"code no migration that makes it: {why_no_revisions(schema)}"
                )


async def _lost(session: AsyncSession, schema: Schema) -> Sequence[Sequence[Any]]:
    return (await session.execute(LOST, own_columns(schema))).all()


LOST = text("""
    SELECT place, name, to_regclass(place) IS NOT NULL
    FROM unnest(CAST(:places AS text[]), CAST(:names AS text[])) AS own (place, name)
    WHERE NOT EXISTS (
        SELECT FROM pg_attribute WHERE attrelid = to_regclass(place) AND attname = name AND NOT attisdropped
    )
""")
"""Returns the columns that a database lacks of those that are asked for, and whether their table is there."""


def own_columns(schema: Schema) -> dict[str, list[str]]:
    """Return what ``LOST`` asks for: the columns of the project's tables."""
    found: dict[str, list[str]] = {"places": [], "names": []}
    for table in schema.metadata.sorted_tables:
        place = (schema.namespace if table.schema == LEDGER else table.schema, table.name)
        for column in table.columns:
            found["places"].append(".".join(f'"{name}"' for name in place if name is not None))
            found["names"].append(column.name)
    return found


def require_all(lost: Sequence[Sequence[Any]], schema: Schema) -> None:
    """Return if a database with the newest migration lacks nothing.

    Raises:
        LostTableError: it lacks a table or a column; the text names the cure.
    """
    if not lost:
        return
    place, name, has_table = lost[0]
    if has_table:
        raise LostTableError(
            f"the table {place} has no column {name}, although {schema.version_place} says that the migrations of "
            f"{schema.name} are applied: a migration is not written yet, or one of the two is another project's: set "
            f"another version_table in the Schema of {schema.name}, or use another database"
        )
    raise LostTableError(
        f"the database lacks the table {place}, although {schema.version_place} says that the migrations of "
        f"{schema.name} are applied: restore it from a backup; or, if all its tables are gone, delete the row of "
        f"{schema.version_place} and apply the migrations with the command migrate; or, if the row is another "
        f"project's, set another version_table in the Schema of {schema.name}, or use another database"
    )


def require_own_revisions(stored: Collection[str], schema: Schema) -> None:
    """Return if this project has written the revisions. Those of newer versions are higher numbers.

    Raises:
        ForeignRevisionError: another project has written one; the text names the cure.
    """
    ours = revisions(schema)
    newest = int(ours[-1]) if ours else 0
    unknown = sorted({*stored}.difference(ours))
    if foreign := [revision for revision in unknown if not (revision.isdecimal() and int(revision) > newest)]:
        raise ForeignRevisionError(
            f"the table {schema.version_table} has the revision {foreign[0]:.40}, which {schema.name} does not have: "
            f"it is another project's. Set another version_table in the Schema of {schema.name}, or use another "
            "database"
        )


async def _stored(session: AsyncSession, schema: Schema) -> set[str]:
    place = ".".join(f'"{name}"' for name in (schema.namespace, schema.version_table) if name is not None)
    is_migrated = await session.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": place})
    if not is_migrated:
        return set()
    return set(await session.scalars(text(f"SELECT version_num FROM {place}")))  # noqa: S608 - a name, in quotes


def _missing(stored: set[str], schema: Schema) -> list[str]:
    require_own_revisions(stored, schema)
    ours = revisions(schema)
    known = [number for number, revision in enumerate(ours, start=1) if revision in stored]
    if stored and not known:
        return []  # migrated by a newer version of the code
    return ours[max(known, default=0) :]
