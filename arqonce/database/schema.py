"""Which tables and migrations a project has, and whether a database has them all.

Loads no Alembic: each worker asks this at its start.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class SchemaBehindError(RuntimeError):
    """The database lacks migrations that this version of the code needs."""


@dataclass(frozen=True)
class Schema:
    """The tables of one project, and the migrations that make them.

    Raises:
        ValueError: the name is none that a table can end with.
    """

    name: str
    """Of the project: lower-case letters, digits and underscores."""

    metadata: MetaData
    """Of a declarative base of the project's own."""

    migrations: Path
    """Folder of the migrations, in files that begin with the revision's number: ``0001_orders.py`` is ``0001``."""

    version_table: str = "alembic_version"
    """Where Alembic notes which migrations the database has: of two projects in one database each needs its own."""

    def __post_init__(self) -> None:
        """Check the name, which becomes part of a table's."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the schema's name {self.name!r} must be 1 to 40 of a-z, 0-9 and _, the first a letter")


def revisions(schema: Schema) -> list[str]:
    """Return the revisions of this code, oldest first."""
    return sorted(file.name.split("_")[0] for file in schema.migrations.glob("[0-9]*.py"))


async def require_current_schemas(sessions: async_sessionmaker[AsyncSession], schemas: Iterable[Schema]) -> None:
    """Return if the database has every migration of this code. Newer ones are welcome: deploys migrate first.

    Up to three round trips for the first schema, two for each other.

    Raises:
        SchemaBehindError: migrations are missing; the text names the command that applies them.
    """
    async with sessions() as session:
        for schema in schemas:
            if missing := _missing(await _stored(session, schema), revisions(schema)):
                raise SchemaBehindError(
                    f"the database lacks {len(missing)} of the migrations of {schema.name} (first: {missing[0]}). "
                    "Apply them with the command migrate"
                )


async def _stored(session: AsyncSession, schema: Schema) -> set[str]:
    table = schema.version_table
    is_migrated = await session.scalar(text("SELECT to_regclass(:name) IS NOT NULL"), {"name": table})
    if not is_migrated:
        return set()
    return set(await session.scalars(text(f"SELECT version_num FROM {table}")))  # noqa: S608 - Schema checks its name


def _missing(stored: set[str], ours: list[str]) -> list[str]:
    known = [number for number, revision in enumerate(ours, start=1) if revision in stored]
    if stored and not known:
        return []  # migrated by a newer version of the code
    return ours[max(known, default=0) :]
