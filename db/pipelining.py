"""Transactions with two round trips fewer: BEGIN goes with the first statement, the last statement with COMMIT.

PostgreSQL executes what it is sent in order, and answers at the next Sync. asyncpg writes a Sync behind each statement,
and waits. Here BEGIN is written just before the first statement of a transaction, and a statement that was named as the
last one just before COMMIT, without a Sync of their own. After an error the server skips all up to the Sync, COMMIT
included. libpq calls this pipeline mode (PostgreSQL's manual, "Message Flow", "Pipelining").

Uses inner parts of asyncpg, and of SQLAlchemy's adapter for it. Where no statement stays prepared (PgBouncer), and for
transactions of a special kind, everything goes the ordinary way.
"""

import struct
from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.util import await_only

_Value: TypeAlias = str | bytes | int | None
Argument: TypeAlias = _Value | Sequence[_Value]
"""What a last statement can be given: text, bytea and integer, and lists of one of these."""

_ELEMENT_TYPES = {str: 25, bytes: 17, int: 23}
"""Object ids of PostgreSQL's types (``pg_type``)."""

_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)

DriverError = dialect.AsyncAdapt_asyncpg_dbapi.Error
"""An error as the adapter raises it."""


ENDED = (
    "the transaction was committed or rolled back inside: only its owner may do that. If it was committed, what was "
    "written before STAYS STORED, without a receipt. Remove that from the handler; session.flush() sends what is "
    "pending, session.begin_nested() undoes a part"
)


class TransactionEndedError(InvalidRequestError):
    """Whoever was given the transaction has ended it."""


class PipeliningDriver(dialect.AsyncAdapt_asyncpg_dbapi):
    """SQLAlchemy's adapter for asyncpg, whose connections do this: the ``module`` of ``create_async_engine``."""

    def connect(self, *args: Any, **options: Any) -> Any:
        """Connect."""
        own = {name: options.pop(name) for name in _ADAPTER_OPTIONS if name in options}
        connect = options.pop("async_creator_fn", self.asyncpg.connect)  # as in SQLAlchemy
        return await_only(PipeliningConnection.create(self, connect(*args, **options), **own))


_ADAPTER_OPTIONS = ("prepared_statement_cache_size", "prepared_statement_name_func")


class _Cursor(dialect.AsyncAdapt_asyncpg_cursor):
    _adapt_connection: "PipeliningConnection"

    async def _executemany(self, operation: Any, seq_of_parameters: Any) -> Any:
        await self._adapt_connection.begin_apart()
        return await super()._executemany(operation, seq_of_parameters)


class _ServerSideCursor(dialect.AsyncAdapt_asyncpg_ss_cursor):
    _adapt_connection: "PipeliningConnection"

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        await self._adapt_connection.begin_apart()
        await super()._prepare_and_execute(operation, parameters)


class PipeliningConnection(dialect.AsyncAdapt_asyncpg_connection):
    """A connection that holds back BEGIN and a last statement until there is something to send them with."""

    _connection: Any
    _transaction: Any
    _last: Any  # a statement and its arguments, or None
    __slots__ = ("_last",)
    _cursor_cls = _Cursor
    _ss_cursor_cls = _ServerSideCursor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._last = None

    async def _start_transaction(self) -> None:
        is_plain = self.isolation_level is None and not self.readonly and not self.deferrable
        if is_plain and self._prepared_statement_cache is not None:
            self._transaction = _HeldTransaction(self._connection)
        else:
            await super()._start_transaction()

    async def _prepare(self, operation: Any, invalidate_timestamp: Any) -> Any:
        if self._last is not None:
            await self._execute_held()
        prepared = await super()._prepare(operation, invalidate_timestamp)
        if isinstance(self._transaction, _HeldTransaction):
            self._transaction.begin_with_next()  # the caller's fetch: nothing waits in between
        return prepared

    def fetch(self, statement: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Execute a statement and return its rows: what a cursor does, less what is for SQLAlchemy."""
        try:
            rows: Sequence[Any] = await_only(self._fetch(statement, arguments))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: it raises the right one
            self._forget_stale(statement, error)
            self._handle_exception(error)
        return rows

    def _forget_stale(self, statement: str, error: Exception) -> None:
        """Have a statement prepared anew whose tables have changed since: SQLAlchemy would go on using the old one."""
        if isinstance(error, _STALE) and self._prepared_statement_cache is not None:
            self._prepared_statement_cache.pop(statement, None)

    async def _fetch(self, statement: str, arguments: Sequence[Any]) -> Any:
        async with self._execute_mutex:
            if self._transaction is None:
                await self._start_transaction()
            prepared, _ = await self._prepare(statement, 0)
            return await prepared.fetch(*arguments)

    async def begin_apart(self) -> None:
        """Send what is held back: what comes next cannot take it along."""
        async with self._execute_mutex:
            if self._last is not None:
                await self._execute_held()
            await self._begin_now()

    async def _begin_now(self) -> None:
        if self._transaction is None:
            await super()._start_transaction()
        elif isinstance(self._transaction, _HeldTransaction):
            await self._transaction.begin_now()

    def execute_last(self, statement: str, arguments: tuple[Argument, ...]) -> None:
        """Hold the statement back until COMMIT."""
        if self._last is not None:
            raise RuntimeError("the transaction has its last statement already")
        self._last = statement, arguments

    async def _execute_held(self) -> None:
        """Execute the last statement before its time."""
        (statement, arguments), self._last = self._last, None
        await self._begin_now()
        await self._connection.execute(statement, *arguments)

    def commit(self) -> None:
        """Commit, and execute the last statement with it."""
        if self._last is None:
            super().commit()
            return
        try:
            await_only(self._call_and_discard(self._commit_with_last))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: it raises the right one
            self._handle_exception(error)

    async def _commit_with_last(self) -> None:
        if self._transaction is None:
            await self._start_transaction()
        elif not (isinstance(self._transaction, _HeldTransaction) and self._transaction.is_to_begin):
            self._require_transaction()
        if not isinstance(self._transaction, _HeldTransaction):
            try:
                await self._execute_held()
            except Exception:
                await self._undo()
                raise
            if self._transaction is not None:
                await self._transaction.commit()
            return
        (statement, arguments), self._last = self._last, None
        try:
            last, _ = await super()._prepare(statement, 0)
            commit, _ = await super()._prepare("COMMIT", 0)
            messages = _bind(last.get_name(), arguments) + _EXECUTE
            self._transaction.begin_with_next()
            _write(self._connection, messages)
            await commit.fetch()
        except Exception as error:
            self._forget_stale(statement, error)
            await self._undo()
            raise

    def _require_transaction(self) -> None:
        """Refuse to execute a last statement by itself. The server's last answer has said whether there is one.

        Raises:
            TransactionEndedError: there is none.
        """
        if not self._connection.is_in_transaction():
            self._last = None
            raise TransactionEndedError(ENDED)

    async def _undo(self) -> None:
        """End a transaction that was not committed: SQLAlchemy believes that it has ended."""
        try:
            if self._transaction is not None:
                await self._transaction.rollback()
        except Exception:  # noqa: BLE001 - the first error is told
            self._connection.terminate()

    def rollback(self) -> None:
        """Roll back, and forget a last statement."""
        self._last = None
        super().rollback()


class _HeldTransaction:
    """A transaction whose BEGIN goes with its first statement. SQLAlchemy takes it for asyncpg's."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._has_begun = False

    @property
    def is_to_begin(self) -> bool:
        """Whether nothing was sent yet."""
        return not self._has_begun

    def begin_with_next(self) -> None:
        """Write BEGIN, unless it is. A statement follows at once; if asyncpg refuses to send that, any other may.

        asyncpg passes over what it did not ask for, and the server sends it only with the answer to something else.
        """
        if not self._has_begun:
            self._has_begun = True
            _write(self._connection, _BEGIN)

    async def begin_now(self) -> None:
        """Send BEGIN, unless it is."""
        if not self._has_begun:
            self._has_begun = True
            await self._connection.execute("BEGIN")

    async def commit(self) -> None:
        if self._has_begun:
            await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        if self._has_begun:
            await self._connection.execute("ROLLBACK")


def _write(connection: Any, messages: bytes) -> None:
    if not connection.is_closed():  # else the statement that follows raises
        connection._transport.write(messages)


def _message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("!i", len(body) + 4) + body


_EXECUTE = _message(b"E", b"\0", struct.pack("!i", 0))
"""Execute the unnamed portal, whatever number of rows it has."""

_BEGIN = _message(b"P", b"\0BEGIN\0", bytes(2)) + _message(b"B", b"\0\0", bytes(6)) + _EXECUTE
"""Parse and bind as unnamed, and execute."""


def _bind(statement: str, arguments: Sequence[Argument]) -> bytes:
    """Bind arguments in PostgreSQL's binary format to a prepared statement, as the unnamed portal."""
    fields = map(_field, arguments)
    return _message(
        b"B", b"\0", statement.encode(), b"\0", struct.pack("!hhh", 1, 1, len(arguments)), *fields, bytes(2)
    )


def _field(value: Argument) -> bytes:
    """Write a value behind its length. -1 says NULL."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bytes):
        data = value
    elif isinstance(value, int):
        data = _INTEGER.pack(value)
    else:
        known = next((item for item in value if item is not None), "")
        header = struct.pack("!iiiii", 1, None in value, _ELEMENT_TYPES[type(known)], len(value), 1)
        data = header + b"".join(map(_field, value))
    return _INTEGER.pack(len(data)) + data


_INTEGER = struct.Struct("!i")
_NULL = _INTEGER.pack(-1)
