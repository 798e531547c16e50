"""Tells what went wrong in PostgreSQL: will it pass, and which constraint was it? Decides nothing."""

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

_TRANSIENT_CLASSES = frozenset({"08", "53", "57"})
"""Connection exceptions, insufficient resources, operator intervention (manual, appendix A)."""

_TRANSIENT_STATES = frozenset({
    "25006",  # read-only transaction: the primary has moved
    "40001",  # serialization failure
    "40P01",  # deadlock detected
    "55P03",  # lock not available
})  # fmt: skip


_GONE_STATES = frozenset({
    "53300",  # too many connections
    "57P01",  # admin shutdown
    "57P02",  # crash shutdown
    "57P03",  # cannot connect now: it is starting or stopping
})  # fmt: skip


def _driver_error(error: BaseException) -> BaseException | None:
    # SQLAlchemy wraps twice: DBAPIError.orig is its own adapter's error, whose cause is asyncpg's.
    if not isinstance(error, DBAPIError):
        return error
    return error.orig and (error.orig.__cause__ or error.orig)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE of a database error, ``None`` where the server sent none."""
    return getattr(_driver_error(error), "sqlstate", None)


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the violated constraint, ``None`` where it was something else."""
    return getattr(_driver_error(error), "constraint_name", None)


_CURES = {
    "25P03": "the transaction paused for longer than the server allows (idle_in_transaction_session_timeout)",
    "25P04": "the transaction took longer than the server allows (transaction_timeout)",
    "57014": "a statement took longer than DATABASE_STATEMENT_TIMEOUT, its waiting for locks included",
    "42703": "a column is missing: does a migration add it, and has users-worker migrate applied that?",
    "42P01": "a table is missing: does a migration make it, and has users-worker migrate applied that?",
    "42501": "this user may not do that: grant it what the job needs",
}


_LOST_STATES = frozenset({"08003", "08006"})
"""What asyncpg says when the connection ends under a statement, whatever the server's last word was."""

_LOST = (
    "the connection was lost; if that was in a pause of the transaction, compare the job's deadline with the server's "
    "transaction_timeout and with the limits of a pooler or firewall in between"
)


def cure_of(error: BaseException) -> str | None:
    """Return what is likely the cause of an error of the database, and the cure, where there is one."""
    state = sqlstate_of(error)
    is_lost = state is None and isinstance(_driver_error(error), asyncpg.InterfaceError | ConnectionError)
    if is_lost or state in _LOST_STATES:
        return _LOST
    return _CURES.get(state or "")


def is_unreachable(error: BaseException) -> bool:
    """Say whether the error looks like a server that is gone. One session may be lost without that: ask the server."""
    state = sqlstate_of(error)
    if state is None:
        return is_transient(error) and not isinstance(error, PoolTimeoutError)
    return state[:2] == "08" or state in _GONE_STATES


def is_transient(error: BaseException) -> bool:
    """Say whether the same statement may succeed later with nothing changed by us."""
    if isinstance(error, PoolTimeoutError):
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES
    # No answer from the server: refused, reset, closed, timed out. OSError includes TimeoutError.
    return isinstance(_driver_error(error), OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)
