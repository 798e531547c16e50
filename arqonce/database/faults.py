"""Classifies database errors: are they transient, who caused them, which constraint was violated? Decides nothing."""

from collections.abc import Sequence
from socket import gaierror
from traceback import walk_tb

import asyncpg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from arqonce.causes import causes
from arqonce.database.connecting import UnwritableServerError
from arqonce.database.pooler import said_by_pooler
from arqonce.unreachable import why_local

_TRANSIENT_CLASSES = frozenset({"08", "28", "3D", "53", "57", "58"})
"""Connection exceptions, rejected users and databases, insufficient resources, operator intervention, system errors
(manual, appendix A)."""

_TRANSIENT_STATES = frozenset({
    "25006",  # read-only transaction: the primary has moved
    "40001",  # serialization failure; on a standby a conflict with recovery
    "40P01",  # deadlock detected
    "55P03",  # lock not available
})  # fmt: skip

_OUTAGE_CLASSES = _TRANSIENT_CLASSES | {"25", "F0", "XX"}
"""Error classes of a server that cannot be used; they have other causes as well."""

_OUTAGE_STATES = frozenset({
    "40001",  # on a standby: a conflict with recovery
    "55000",  # likewise: a lock that only a primary grants
    "42501",  # this and the next two may concern the tables of every job: revoked rights,
    "42P01",  # a table that was dropped or renamed
    "3F000",  # or its schema
})  # fmt: skip

_SERVER_STATES = frozenset({
    "53000",  # insufficient resources
    "53100",  # disk full
    "53300",  # too many connections
    "57P03",  # cannot connect now: it is starting or stopping
    "58000",  # system error
    "58030",  # I/O error
})  # fmt: skip

_LOST_STATES = frozenset({
    "08003",  # what asyncpg raises if the connection ends during a statement, whatever the server has reported
    "08006",  # the same
    "57P01",  # admin shutdown
    "57P02",  # crash shutdown
    "57P05",  # idle_session_timeout
})  # fmt: skip


_CHANGED = ("cache lookup failed for ", "could not open relation with OID ", "tuple concurrently ")
"""How errors begin that PostgreSQL raises where its catalog changes under a statement. They are not translated."""


class ReadOnlyServerError(SQLAlchemyError):
    """The connected server cannot be written to. The text says why, and contains no data."""

    sqlstate = "25006"


class UnusableTableError(SQLAlchemyError):
    """A table that every job needs cannot be written to. The text says why, and contains no data."""


def _driver_error(error: BaseException) -> BaseException | None:
    # SQLAlchemy wraps twice: DBAPIError.orig is its own adapter's error, whose cause is asyncpg's.
    if not isinstance(error, DBAPIError):
        return error
    return error.orig and (error.orig.__cause__ or error.orig)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-character SQLSTATE of a database error; ``None`` if the server sent none."""
    return getattr(_driver_error(error), "sqlstate", None)


def is_denied(error: BaseException) -> bool:
    """Return whether the role lacks a privilege for the statement."""
    return sqlstate_of(error) == "42501"


def constraint_of(error: BaseException) -> str | None:
    """Return the name of the violated constraint; ``None`` for other errors."""
    return getattr(_driver_error(error), "constraint_name", None)


_CURES = {
    "40001": "it is in conflict with others: does it need its isolation level (default_transaction_isolation)?",
    "25P02": "an earlier statement had failed, and the job went on: let its error through, or use begin_nested()",
    "25P03": "the transaction paused for longer than the server allows (idle_in_transaction_session_timeout)",
    "25P04": "the transaction took longer than the server allows (transaction_timeout)",
    "57014": "a statement, with its waits for locks, took longer than DATABASE_STATEMENT_TIMEOUT",
    "55P03": "a lock was not free: within the lock_timeout of this user, database or server, or at once (NOWAIT)",
    "25006": "the transaction was read-only although the server is not: does the job set it read-only?",
    "23502": "a column that must have a value got none: does the job know all columns of the table?",
    "42703": "a column is missing: does a migration add it, and has the command migrate applied that?",
    "42P01": "a table is missing: does a migration create it, and has the command migrate applied that?",
    "42501": "this user lacks a privilege: grant it what the job needs (to promise jobs: deploy/postgres/grants.sql). "
    "Or a policy of row-level security refuses the row: does the job set first what the policy asks for?",
    "53100": "the disk of the server is full: free space there",
    "P0001": "a trigger or function of the database has raised this",
    "2200H": "a sequence is exhausted: is the column behind it too small (integer, not bigint)?",
    "22003": "a number is out of the range of its column: is that too small (integer, not bigint)?",
}


_LOST = (
    "the connection was lost; if that was in a pause of the transaction, compare the job's deadline with the server's "
    "transaction_timeout and with the limits of a pooler or firewall in between"
)


_SILENT = (
    "no answer within DATABASE_COMMAND_TIMEOUT: is the network slow, or does the commit wait for a synchronous standby?"
)

_NONE_FREE = "no connection of the pool was free in time: does the job open several, or leave some open?"


def cure_of(error: BaseException) -> str | None:
    """Return the likely cause of a database error and its cure; ``None`` if unknown."""
    state = sqlstate_of(error)
    if isinstance(error, PoolTimeoutError):
        return _NONE_FREE
    if isinstance(_driver_error(error), TimeoutError):
        return _SILENT
    is_lost = state is None and isinstance(_driver_error(error), asyncpg.InterfaceError | ConnectionError)
    if is_lost or state in _LOST_STATES:
        return _LOST
    return _CURES.get(state or "")


_UNWRITABLE = {
    "25006": "it is read-only",
    "53100": "its disk is full",
    "58030": "it cannot read or write its files",
}


def why_not_written(error: BaseException) -> str | None:
    """Return briefly why a server that answers cannot be written to; ``None`` if the error has another meaning."""
    cause = _driver_error(error)
    if isinstance(cause, UnwritableServerError | ReadOnlyServerError | UnusableTableError):
        return str(cause)
    return _UNWRITABLE.get(sqlstate_of(error) or "")


_UNAVAILABLE = {
    "53300": "it accepts no more connections",
    "57P01": "it is shutting down",
    "57P02": "it has crashed",
    "57P03": "it is starting, stopping or recovering",
    "0A000": "a table has changed meanwhile",
    "28000": "it refuses the user",
    "28P01": "it refuses the password",
    "3D000": "it has no such database",
    "55000": "the database takes no connections (ALLOW_CONNECTIONS)",
    "57014": "a statement took longer than DATABASE_STATEMENT_TIMEOUT: is a table locked?",
}

_LOST_CONNECTION = "the connection was lost"

_NO_ANSWER: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (PoolTimeoutError, "no connection of the pool was free in time"),
    (TimeoutError, "it does not answer in time"),
    (ConnectionRefusedError, "nothing listens there"),
    (gaierror, "the host's name is not known"),
    ((asyncpg.InterfaceError, ConnectionError), _LOST_CONNECTION),
)


def why_unavailable(error: BaseException) -> str:
    """Return briefly, without data, why a server cannot be used."""
    state = sqlstate_of(error)
    if state is None:
        cause = error if isinstance(error, PoolTimeoutError) else _driver_error(error)
        reasons = (why for kinds, why in _NO_ANSWER if isinstance(cause, kinds))
        return why_local(error) or next(reasons, f"no answer: {type(cause).__name__}")
    if said := said_by_pooler(error):
        return said[0]
    if state[:2] == "08" and state != "08P01":
        return _LOST_CONNECTION
    refuses = "it refuses the connection" if _is_of_connecting(error) else "it refuses us"
    return f"{_UNAVAILABLE.get(state, refuses)} (SQLSTATE {state})"


def why_delayed(error: BaseException) -> str | None:
    """Return briefly, without data, why a repeated task has to wait; ``None`` if its own code may be at fault."""
    return why_not_written(error) or (why_unavailable(error) if is_transient(error) else cure_of(error))


_OURS = ("arqonce.database.connecting", "arqonce.database.pipelining")
"""What each connection of the worker's own engine is opened by, and each of its statements executed by."""

_MARK = "is_of_worker"

_OPENING = ("sqlalchemy", "asyncpg.connect_utils")

_DRIVERS = ("sqlalchemy", "asyncpg", *_OURS)
"""Packages and modules that raise errors caused by the database."""


def is_of_database(error: BaseException) -> bool:
    """Return whether the database caused the error. An OSError may also come from another server."""
    return isinstance(error, SQLAlchemyError) or _came_through(error, _DRIVERS)


def is_of_driver(error: BaseException) -> bool:
    """Return whether it is the driver's own error, which SQLAlchemy has not wrapped.

    Such come of what a job does with asyncpg itself: COPY on the connection of its session, or a connection of its own.
    """
    return isinstance(error, asyncpg.PostgresError)


def is_of_another(error: BaseException) -> bool:
    """Return whether an error of a database came through a connection that the job has made for itself."""
    if isinstance(error, PoolTimeoutError):
        return False  # whose pool it was is not known
    parts = list(causes(error))
    opened = any(isinstance(part, DBAPIError) or _came_through(part, _OPENING) for part in parts)
    return opened and not any(hasattr(part, _MARK) or _came_through(part, _OURS) for part in parts)


def mark_as_own(error: BaseException) -> None:
    """Note that the error came through the connection that stands for the worker's: a test's is opened otherwise."""
    setattr(error, _MARK, True)


def _came_through(error: BaseException, packages: Sequence[str]) -> bool:
    modules = (str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__))
    return any(f"{module}.".startswith(tuple(f"{package}." for package in packages)) for module in modules)


def may_be_outage(error: BaseException) -> bool:
    """Return whether the error, or one of its causes, may come from an unreachable or unwritable server.

    A job can cause such an error, too: probe the server to decide.
    """
    return any(_looks_like_outage(part) for part in causes(error))


def _looks_like_outage(error: BaseException) -> bool:
    state = sqlstate_of(error)
    if state is None:
        return is_transient(error) and not isinstance(error, PoolTimeoutError)
    return state[:2] in _OUTAGE_CLASSES or state in _OUTAGE_STATES or _is_of_connecting(error)


def is_fault_of_server(error: BaseException) -> bool:
    """Return whether the connected server caused the error: it could not be written to, or lacked resources.

    Another connection may lead to a server that can be written to.
    """
    for part in causes(error):
        state = sqlstate_of(part)
        if state in _SERVER_STATES or isinstance(_driver_error(part), UnwritableServerError):
            return True
        if state == "25006" and getattr(part, "connection_invalidated", False):  # see arqonce/database/wrong_servers.py
            return True
    return False


def is_conflict(error: BaseException) -> bool:
    """Return whether others that ran with it ended the transaction: ``SERIALIZABLE``, or a migration of its tables."""
    return any(sqlstate_of(part) == "40001" or _met_change(part) for part in causes(error))


def _met_change(error: BaseException) -> bool:
    """Return whether a table or type was changed after a statement on it had been prepared or planned."""
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.InternalServerError):
        return str(cause).startswith(_CHANGED)
    return isinstance(cause, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether the connection was lost or not made, because of a restart, a failover or the network."""
    return any(_looks_lost(part) for part in causes(error))


def _looks_lost(error: BaseException) -> bool:
    if not isinstance(error, DBAPIError):
        return isinstance(error, OSError) and _is_of_connecting(error)
    state = sqlstate_of(error)
    return error.connection_invalidated if state is None else state in _LOST_STATES or state[:2] == "08"


def _is_of_connecting(error: BaseException) -> bool:
    """Return whether a connection could not be made: no statement has caused it, whatever its SQLSTATE."""
    cause = _driver_error(error)
    frames = (frame for frame, _ in walk_tb(None if cause is None else cause.__traceback__))
    return any((f.f_globals.get("__name__"), f.f_code.co_name) == ("asyncpg.connection", "connect") for f in frames)


def is_transient(error: BaseException) -> bool:
    """Return whether the same statement may succeed later without any change of ours."""
    if isinstance(error, PoolTimeoutError) or _met_change(error) or _is_of_connecting(error):
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_STATES
    # No response of the server: refused, reset, closed, timed out. OSError includes TimeoutError.
    return isinstance(_driver_error(error), OSError | asyncpg.InterfaceError | asyncpg.InternalClientError)
