"""What is said of a server that cannot be used. Needs none."""

import errno

import pytest
from asyncpg import ProtocolViolationError
from pydantic import SecretStr
from redis.exceptions import AuthenticationError, InvalidResponse, OutOfMemoryError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from arqonce.connection.redis import explain
from arqonce.database.settings import DatabaseSettings
from arqonce.process.startup_errors import explain_database


class _WrongPasswordError(Exception):
    sqlstate = "28P01"


class _WrongValueError(Exception):
    sqlstate = "22008"


class _StartingError(Exception):
    sqlstate = "57P03"


class _LateError(Exception):
    sqlstate = "57014"


_NO_PARAMETERS = ProtocolViolationError("unsupported startup parameter: statement_timeout")


_REJECTED = ConnectionError('PostgreSQL server at "h:5432" rejected SSL upgrade')


@pytest.mark.parametrize(
    ("url", "error", "expected"),
    [
        ("postgresql://h/d", _REJECTED, "cannot be reached (it answers as another kind of server on this port would)"),
        ("postgresql://h/d?sslmode=require", _REJECTED, "it does not use TLS on this port: turn TLS on"),
        ("postgresql://h/d", TimeoutError(), "cannot be reached (it does not answer in time)"),
        ("postgresql://h/d", _WrongPasswordError(), "requires a password: set DATABASE_PASSWORD"),
        ("postgresql://h/d", _WrongValueError(), "refuses a statement (SQLSTATE 22008)"),
        ("postgresql://h/d", _StartingError(), "is not ready: it is starting, stopping or recovering (SQLSTATE 57P03)"),
        ("postgresql://h/d", _LateError(), "took longer than DATABASE_STATEMENT_TIMEOUT: is a table locked?"),
        ("postgresql://h/d", _NO_PARAMETERS, "takes no settings with a connection: if it is PgBouncer in transaction"),
        ("postgresql://h/d", ProtocolViolationError("query_wait_timeout"), "no free connection to the server in time"),
        ("postgresql://h/d", ProtocolViolationError("Jane"), "is not ready: it refuses us (SQLSTATE 08P01)"),
        ("postgresql://h/d", PermissionError(13, "denied", "/root/a.key"), "/root/a.key: set HOME to a folder"),
        ("postgresql:///d?host=/run", PermissionError(13, "denied"), "cannot be reached (this account may not connect"),
        ("postgresql://h/d", OSError(errno.EMFILE, "files"), "cannot be reached: this process has too many open files"),
        ("postgresql://h/d", OSError(errno.ENETUNREACH, "net"), "cannot be reached (this machine has no way to it)"),
        ("postgresql://u:p@h/d", _WrongPasswordError(), "refuses the password: correct DATABASE_URL"),
    ],
)
def test_what_is_wrong_with_postgresql_is_said(url: str, error: Exception, expected: str) -> None:
    """A password that nobody gave is not wrong, and TLS that nobody asked for is not what fails."""
    assert expected in explain_database(error, DatabaseSettings.load(url=SecretStr(url)))


def _chained(error: RedisError, cause: Exception) -> RedisError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            _chained(RedisConnectionError("reply"), InvalidResponse("Protocol error, got H")),
            "(it answers as another kind of",
        ),
        (AuthenticationError("HELLO must be called with the client already authenticated, ..."), "requires a password"),
        (AuthenticationError("Authentication required."), "requires a password: set REDIS_PASSWORD"),
        (AuthenticationError("AUTH <password> called without any password configured"), "has no password: remove it"),
        (AuthenticationError("invalid username-password pair or user is disabled."), "refuses the user or password"),
        (RedisConnectionError("max number of clients reached"), "accepts no more connections: raise its maxclients"),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "is full: raise its maxmemory"),
        (RedisTimeoutError("Redis did not answer in time"), "(it does not answer in time)"),
        (RedisConnectionError("the connection was lost (closed)"), "(it closes the connection, as another kind of"),
        # redis-py's, with the whole command: the message of a job, which has people's data
        (
            ResponseError('Command # 1 (SET a {"name": "Jane (J)"}) of pipeline caused error: ("MISCONF it\'s so",)'),
            "Redis at h:6379/0 refuses the command: MISCONF it's so",
        ),
        (ResponseError("Command # 2 (INFO memory) of pipeline caused error: BUSY a"), "refuses the command: BUSY a"),
        (
            _chained(RedisConnectionError("Error 24"), OSError(errno.EMFILE, "files")),
            "cannot be reached: this process has too many open files: do jobs leave some open?",
        ),
    ],
)
def test_what_is_wrong_with_redis_is_said(error: RedisError, expected: str) -> None:
    """Likewise."""
    assert expected in str(explain(error, "redis://h"))
