"""Tells whether a database has every migration of this code. Loads no Alembic: each worker asks this at its start."""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

MIGRATIONS = Path(__file__).parent / "migrations"
"""The migrations, in files that begin with the revision's number: ``0001_users.py`` is revision ``0001``."""


class SchemaBehindError(RuntimeError):
    """The database lacks migrations that this version of the code needs."""


def revisions() -> list[str]:
    """Return the revisions of this code, oldest first."""
    return sorted(file.name.split("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


async def require_current_schema(sessions: async_sessionmaker[AsyncSession]) -> None:
    """Return if the database has every migration of this code. Newer ones are welcome: deploys migrate first.

    Up to three round trips.

    Raises:
        SchemaBehindError: migrations are missing; the text names the command that applies them.
    """
    async with sessions() as session:
        is_migrated = await session.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
        stored = set(await session.scalars(text("SELECT version_num FROM alembic_version"))) if is_migrated else set()
    if missing := _missing(stored):
        raise SchemaBehindError(
            f"the database lacks {len(missing)} of this version's migrations (first: {missing[0]}). "
            "Run: users-worker migrate"
        )


def _missing(stored: set[str]) -> list[str]:
    ours = revisions()
    known = [number for number, revision in enumerate(ours, start=1) if revision in stored]
    if stored and not known:
        return []  # migrated by a newer version of the code
    return ours[max(known, default=0) :]
