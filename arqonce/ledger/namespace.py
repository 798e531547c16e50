"""Finds out in which PostgreSQL schema a session's ledger lies. Knows no table.

The engine says it: ``build_engine`` gives one whose ledger lies elsewhere SQLAlchemy's ``schema_translate_map``, which
serves all statements but texts. An engine without one has the ledger in the default schema.
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
    """Return a text of ours for the session's ledger: the same object for the default schema."""
    name = namespace_of(session)
    return statement if name == LEDGER else _moved(statement, name)


def sql_for(session: AsyncSession, statement: str) -> str:
    """Return an SQL text of ours, for the driver itself, for the session's ledger."""
    return in_namespace(statement, namespace_of(session))


@lru_cache(maxsize=100)
def _moved(statement: TextClause, name: str) -> TextClause:
    moved = statement.bindparams()  # a copy
    moved.text = in_namespace(statement.text, name)
    return moved
