"""Explains why a process or a command cannot start. Imports nothing that a worker alone needs."""

import asyncpg

from arqonce.connection.tls import tls_problem
from arqonce.database.connecting import READ_ONLY, STANDBY
from arqonce.database.faults import is_transient, sqlstate_of, why_not_written, why_unavailable
from arqonce.database.pooler import said_by_pooler
from arqonce.database.settings import DatabaseSettings
from arqonce.unreachable import FOREIGN, why_local, why_unreachable


class StartupError(RuntimeError):
    """The worker cannot start; the text names the cure."""


_REFUSALS = {
    "28P01": "refuses the password: correct DATABASE_URL or DATABASE_PASSWORD",
    "28000": "refuses this user: correct DATABASE_URL, or allow the user in pg_hba.conf",
    "3D000": "has no such database: create it, or correct DATABASE_URL",
    "42P01": "lacks a table: apply the migrations with the command migrate, or correct DATABASE_LEDGER_SCHEMA",
    "3F000": "lacks a schema: apply the migrations with the command migrate, or correct DATABASE_LEDGER_SCHEMA",
    "42501": "denies this user a privilege: grant it (on the schema to apply migrations, on the tables to run jobs)",
}


_NO_SCHEMA = (
    "has no schema to create tables in: its search_path names none that exists; "
    "set one that does, ALTER DATABASE ... SET search_path = public, for the database or the user"
)

_CURES = {
    STANDBY: ". Let DATABASE_URL point to the primary, or name all hosts: host1:5432,host2:5432",
    READ_ONLY: ". In one session SET it to off, then RESET it with ALTER ROLE, with ALTER DATABASE, "
    "or with ALTER SYSTEM and SELECT pg_reload_conf()",
}


def _refusal(state: str | None, error: Exception, *, has_password: bool) -> str | None:
    if "no schema has been selected" in str(error):
        return _NO_SCHEMA
    if state == "28P01" and not has_password:
        return "requires a password: set DATABASE_PASSWORD, or write it into DATABASE_URL"
    if said := said_by_pooler(error):
        return f"cannot be used, {said[0]}: {said[1]}"
    return _REFUSALS.get(state or "")


def explain_database(error: Exception, settings: DatabaseSettings) -> str:
    """Describe in one line what is wrong with PostgreSQL and how to correct it."""
    state = sqlstate_of(error)
    if reason := why_not_written(error):
        return f"PostgreSQL at {settings.location} cannot be written to: {reason}{_CURES.get(reason, '')}"
    local, has_password = why_local(error), settings.sqlalchemy_url.password is not None
    if told := f"cannot be reached: {local}" if local else _refusal(state, error, has_password=has_password):
        return f"PostgreSQL at {settings.location} {told}"
    if state is not None:
        is_passing = is_transient(error)
        how = f"is not ready: {why_unavailable(error)}" if is_passing else f"refuses a statement (SQLSTATE {state})"
        return f"PostgreSQL at {settings.location} {how}"
    orig = getattr(error, "orig", None)
    reason = why_unreachable(orig or error)
    problem = tls_problem(error, authority="?sslmode=verify-full&sslrootcert=/path/ca.pem in DATABASE_URL")
    if problem and (settings.requires_tls or reason != FOREIGN):
        return f"TLS with PostgreSQL at {settings.location} fails: {problem}"
    cause = getattr(orig, "__cause__", None)
    if isinstance(cause, asyncpg.ClientConfigurationError | asyncpg.TargetServerAttributeNotMatched):
        return f"DATABASE_URL cannot be used for PostgreSQL at {settings.location}: {cause}"
    cure = "is it running, is DATABASE_URL right?"
    if isinstance(error, PermissionError) and error.filename:  # asyncpg's, of ~/.postgresql; a socket's has no name
        cure = f"this account may not look for {error.filename}: set HOME to a folder that it may read, or unset it"
    return f"PostgreSQL at {settings.location} cannot be reached ({reason}): {cure}"
