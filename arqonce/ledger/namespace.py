"""Determines the PostgreSQL schema of a session's ledger. Knows no table.

If the ledger is not in the default schema, ``build_engine`` sets SQLAlchemy's ``schema_translate_map`` on the engine.
That option applies to all statements but textual ones, which are rewritten here.
"""

from functools import lru_cache

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.namespace import LEDGER, in_namespace


def namespace_of(session: AsyncSession) -> str:
    """Return the schema of the ledger on the session's engine or connection. No round trip."""
    options = session.sync_session.get_bind().get_execution_options()
    names = options.get("schema_translate_map")
    return LEDGER if names is None else str(names.get(LEDGER, LEDGER))


def text_for(session: AsyncSession, statement: TextClause) -> TextClause:
    """Rewrite a textual statement for the session's ledger; the default schema returns the same object."""
    name = namespace_of(session)
    return statement if name == LEDGER else _moved(statement, name)


def sql_for(session: AsyncSession, statement: str) -> str:
    """Rewrite an SQL string, to be executed by the driver, for the session's ledger."""
    return in_namespace(statement, namespace_of(session))


@lru_cache(maxsize=100)
def _moved(statement: TextClause, name: str) -> TextClause:
    moved = statement.bindparams()  # a copy
    moved.text = in_namespace(statement.text, name)
    return moved
