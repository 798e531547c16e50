"""Transactions with two round trips fewer: BEGIN goes with the first statement, the last statement with COMMIT.

PostgreSQL executes what it is sent in order, and answers at the next Sync. asyncpg writes a Sync behind each statement,
and waits. Here BEGIN is written just before the first statement of a transaction, and a statement that was named as the
last one just before COMMIT, without a Sync of their own. After an error the server skips all up to the Sync, COMMIT
included. libpq calls this pipeline mode (PostgreSQL's manual, "Message Flow", "Pipelining").

What a job has left in its session (settings, locks, cursors and so on) is removed in the same way, behind COMMIT or
ROLLBACK; a connection that cannot be cleaned so is closed when the job's loan of it ends.

Uses inner parts of asyncpg, and of SQLAlchemy's adapter for it. Where no statement stays prepared (PgBouncer),
everything goes the ordinary way.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.util import await_only

from arqonce.database.asyncpg_connection import ENDED, REFUSED, LentConnection, TransactionEndedError
from arqonce.database.loans import Loan
from arqonce.database.protocol import Argument, command, execution
from arqonce.database.suspects import HAS_SUSPECT_FUNCTIONS, is_suspect

_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)

_LOST_NAMES = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""Somebody has removed a prepared statement that is ours, or has left one of his own: the connection is closed."""

DriverError = dialect.AsyncAdapt_asyncpg_dbapi.Error
"""An error as the adapter raises it."""

_OURS = (
    "SET CONSTRAINTS ALL IMMEDIATE",
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "RESET search_path",
)
"""Comes before the last statement of a job that may have set these: it is executed as ourselves, and finds our tables.

What the handler has deferred until COMMIT is done before that, with all that it has set.
"""

_LEFT = (
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "RESET ALL",
    "CLOSE ALL",
    "UNLISTEN *",
    "DISCARD TEMP",
    "DISCARD SEQUENCES",
)
"""Comes behind COMMIT or ROLLBACK, and removes what a job may have left in its session.

``DISCARD ALL`` would do so too, but stands alone, and discards the statements that asyncpg has prepared.
"""

_BEFORE_LAST = b"".join(map(command, _OURS))
_CLEANING = b"".join(map(command, _LEFT))

_RESET = command("RESET ALL") + command("DISCARD SEQUENCES")
"""Comes before the COMMIT of a job of plain statements: what its triggers may have left."""

_LOCKS = "SELECT pg_catalog.pg_advisory_unlock_all()"

_PREPARED = f"{_LOCKS}, EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"
"""Also says whether there is a statement of PREPARE. We do not know its name, and it goes with the connection."""

_AUTOCOMMIT = (
    "AUTOCOMMIT was refused: each statement would be stored at once, without the job's receipt, and a job that is "
    "delivered again would take effect twice. Nothing was stored. Remove the isolation level; what cannot run in a "
    "transaction belongs in a migration or in a program of its own"
)


class PipeliningDriver(dialect.AsyncAdapt_asyncpg_dbapi):
    """SQLAlchemy's adapter for asyncpg, whose connections do this: the ``module`` of ``create_async_engine``."""

    def connect(self, *args: Any, **options: Any) -> Any:
        """Connect."""
        own = {name: options.pop(name) for name in _ADAPTER_OPTIONS if name in options}
        connect = options.pop("async_creator_fn", self.asyncpg.connect)  # as in SQLAlchemy
        connecting = connect(*args, connection_class=LentConnection, **options)
        return await_only(PipeliningConnection.create(self, connecting, **own))


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
    _loan: Loan | None
    _plain_end: Any  # the prepared COMMIT
    _rest: Any  # the prepared statement that ends a thorough cleaning
    __slots__ = ("_is_bare", "_is_dirty", "_is_ever_suspect", "_is_suspect", "_last", "_loan", "_plain_end", "_rest")
    _cursor_cls = _Cursor
    _ss_cursor_cls = _ServerSideCursor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._last = self._loan = self._rest = None
        self._is_dirty = False  # a job has used the session, which was not cleaned since
        self._is_bare = False  # a job has been given asyncpg's connection
        self._is_suspect = False  # it may have executed PREPARE, SET ROLE or the like
        self._is_ever_suspect = False  # each of its transactions may, by functions that are in the database

    def lend(self, loan: Loan) -> None:
        """Let a job use the connection."""
        self._loan = self._connection.loan = loan

    def take_back(self) -> bool:
        """End a job's use of the connection, and say whether others may use it. Sends nothing."""
        is_clean = not (self._is_bare or self._is_dirty)
        self._loan = self._connection.loan = self._last = None
        self.isolation_level = self._isolation_setting = None
        self.readonly = self.deferrable = False
        return is_clean

    @property
    def raw(self) -> Any:
        """Asyncpg's connection, for ourselves: a job's stays one that no handler was given."""
        return self._connection

    @property
    def driver_connection(self) -> Any:
        """Asyncpg's connection. A job's is in its transaction, and closed afterwards: no one knows what it has become.

        BEGIN is written without a wait: whoever asks need not be in a coroutine.
        """
        if self._loan is not None and not self._is_bare:
            self._is_bare = True
            if self._transaction is None:
                self._transaction = self._held_transaction()
            self._transaction.begin_with_next()
            self._connection._top_xact = self._connection.transaction()  # so that asyncpg's own are savepoints
        return self._connection

    def run_async(self, fn: Any) -> Any:
        """Run a coroutine with asyncpg's connection."""
        return await_only(fn(self.driver_connection))

    def set_isolation_level(self, level: Any) -> None:
        """Set the level of the transactions that follow; a job's connection refuses AUTOCOMMIT."""
        if level == "autocommit" and self._loan is not None:
            raise self._loan.refuse(InvalidRequestError(_AUTOCOMMIT))
        super().set_isolation_level(level)

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction."""
        return bool(self.isolation_level == "autocommit")

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self.set_isolation_level("autocommit" if value else self._isolation_setting)

    def _held_transaction(self) -> "_HeldTransaction":
        words = ["BEGIN"]
        if self.isolation_level is not None:
            words.append(f"ISOLATION LEVEL {self.isolation_level.replace('_', ' ').upper()}")
        if self.readonly or self._reads_only:
            words.append("READ ONLY")
        if self.deferrable:
            words.append("DEFERRABLE")
        return _HeldTransaction(self._connection, " ".join(words))

    @property
    def _can_pipeline(self) -> bool:
        return self._prepared_statement_cache is not None and not self._is_bare

    async def _start_transaction(self) -> None:
        if self.isolation_level == "autocommit":
            return
        try:
            if self._loan is not None:
                self._is_dirty = True
                if self._rest is None and self._can_pipeline:
                    self._rest = await self._connection.prepare(_PREPARED)
                    self._plain_end = await self._connection.prepare_control("COMMIT")
                    # asyncpg sends no Sync when it prepares: a query is under way.
                    self._is_ever_suspect = bool(await self._connection.fetchval(HAS_SUSPECT_FUNCTIONS))
                    self._is_suspect |= self._is_ever_suspect
            transaction = self._held_transaction()
            if not self._can_pipeline or self.isolation_level is not None or self.deferrable:
                # The level comes before any query, and asyncpg prepares the first one in the same message as BEGIN.
                await transaction.begin_now()
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: it raises the right one
            self._handle_exception(error)
        self._transaction = transaction

    async def _prepare(self, operation: Any, invalidate_timestamp: Any) -> Any:
        if self._last is not None:
            await self._execute_held()
        prepared = await super()._prepare(operation, invalidate_timestamp)
        if is_suspect(operation):
            self._is_suspect = True
        if self._transaction is not None:
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

    def _handle_exception(self, error: Exception) -> Any:
        if isinstance(error, _LOST_NAMES):
            self._is_bare = True
        super()._handle_exception(error)

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
            await self._start_transaction()
        if self._transaction is not None:
            await self._transaction.begin_now()

    def execute_last(self, statement: str, arguments: tuple[Argument, ...]) -> None:
        """Hold the statement back until COMMIT. Of a job that only reads, it is the one that stores something."""
        if self._last is not None:
            raise RuntimeError("the transaction has its last statement already")
        self._last = statement, arguments

    async def _execute_held(self) -> None:
        """Execute the last statement before its time."""
        (statement, arguments), self._last = self._last, None
        await self._begin_now()
        await self._connection.execute(statement, *arguments)

    def commit(self) -> None:
        """Commit, and execute the last statement with it.

        Raises:
            TransactionEndedError: a job's handler has called this.
        """
        if self._loan is not None and not self._loan.is_ending:
            raise self._loan.refuse(TransactionEndedError(REFUSED.format("commit()")))
        if self._transaction is None and self._last is None:
            return
        try:
            await_only(self._call_and_discard(self._commit))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: it raises the right one
            self._handle_exception(error)

    async def _commit(self) -> None:
        async with self._execute_mutex:  # a task that a handler has left behind may be executing a statement
            try:
                if self._transaction is None:
                    await self._start_transaction()
                elif self._transaction.has_begun:
                    await self._require_transaction()
                if self._can_pipeline and self._transaction is not None:
                    await self._commit_at_once()
                else:
                    await self._commit_step_by_step()
            except Exception:
                await self._undo()
                raise

    async def _require_transaction(self) -> None:
        """Refuse to commit where there is no transaction. The server's last answer has said whether there is one.

        Raises:
            TransactionEndedError: there is none.
        """
        if self._is_bare:
            await self._connection.control("SELECT")  # BEGIN may have had no answer yet
        if self._last is not None and not self._connection.is_in_transaction():
            self._last = None
            raise TransactionEndedError(ENDED)

    async def _commit_at_once(self) -> None:
        """Write all that ends the transaction, and wait once."""
        has_begun, last, self._last = self._transaction.has_begun, self._last, None
        messages = b""
        if self._reads_only and has_begun:
            if last is None:
                await self._roll_back()
                return
            messages, has_begun = command("ROLLBACK"), False
        if last is not None:
            statement, arguments = last
            await self._commit_with(statement, arguments, messages, has_begun=has_begun)
        elif has_begun:
            await self._end_with(messages, "COMMIT")
        else:
            self._is_dirty = False

    async def _commit_with(self, statement: str, arguments: Any, messages: bytes, *, has_begun: bool) -> None:
        try:
            prepared, _ = await super()._prepare(statement, 0)
            if not has_begun:
                messages += command("BEGIN" if self._reads_only else self._transaction.begin)
                self._transaction.has_begun = True  # an error leaves it to be rolled back
            elif self._is_suspect and self._loan is not None:
                messages += _BEFORE_LAST
            await self._end_with(messages + execution(prepared.get_name(), arguments), "COMMIT")
        except Exception as error:
            self._forget_stale(statement, error)
            raise

    @property
    def _reads_only(self) -> bool:
        return self._loan is not None and self._loan.reads_only

    async def _end_with(self, messages: bytes, ending: str) -> None:
        """Send what ends the transaction, and clean a job's session behind it."""
        if self._loan is None:
            nothing, _ = await super()._prepare("SELECT", 0)
            _write(self._connection, messages + command(ending))
            await nothing.fetch()
        elif self._is_suspect:
            _write(self._connection, messages + command(ending) + _CLEANING)
            [(_, has_prepared)] = await self._rest.fetch()
            self._is_dirty, self._is_suspect = bool(has_prepared), self._is_ever_suspect
        else:  # a COMMIT
            _write(self._connection, messages if self._reads_only else messages + _RESET)
            await self._plain_end.fetch()
            self._is_dirty = False

    async def _commit_step_by_step(self) -> None:
        last = self._last
        if self._reads_only and self._transaction is not None:
            self._last = None
            await self._end_apart("ROLLBACK")
            if last is None:
                return
            self._transaction, self._last = _HeldTransaction(self._connection, "BEGIN"), last
        if self._last is not None:
            if self._loan is not None and self._transaction is not None and self._transaction.has_begun:
                await self._connection.control("; ".join(_OURS))
            await self._execute_held()
        if self._transaction is not None and self._transaction.has_begun:
            await self._end_apart("COMMIT")

    async def _end_apart(self, command: str) -> None:
        """End the transaction; if no statement stays prepared, clean a job's session in the same message."""
        if self._loan is None or self._is_bare:  # what was bare is closed
            await self._connection.control(command)
        else:
            await self._connection.control("; ".join((command, *_LEFT, _LOCKS)))
            self._is_dirty = False

    async def _undo(self) -> None:
        """End a transaction that was not committed: SQLAlchemy believes that it has ended."""
        try:
            await self._roll_back()
        except Exception:  # noqa: BLE001 - the first error is told
            self._connection.terminate()

    def rollback(self) -> None:
        """Roll back, and forget a last statement."""
        self._last = None
        if self._transaction is None:
            return
        try:
            await_only(self._call_and_discard(self._roll_back))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: it raises the right one
            self._handle_exception(error)

    async def _roll_back(self) -> None:
        if self._transaction is None or not self._transaction.has_begun:
            self._is_dirty = False
        elif self._loan is not None and self._is_suspect and self._can_pipeline:
            await self._end_with(b"", "ROLLBACK")
        else:
            await self._end_apart("ROLLBACK")


class _HeldTransaction:
    """A transaction whose BEGIN goes with its first statement."""

    def __init__(self, connection: Any, begin: str) -> None:
        self._connection = connection
        self.begin = begin
        self.has_begun = False

    def begin_with_next(self) -> None:
        """Write BEGIN, unless it is. A statement follows at once; if asyncpg refuses to send that, any other may.

        asyncpg passes over what it did not ask for, and the server sends it only with the answer to something else.
        """
        if not self.has_begun:
            self.has_begun = True
            _write(self._connection, command(self.begin))

    async def begin_now(self) -> None:
        """Send BEGIN, unless it is."""
        if not self.has_begun:
            self.has_begun = True
            await self._connection.control(self.begin)


def _write(connection: Any, messages: bytes) -> None:
    if not connection.is_closed():  # else the statement that follows raises
        connection._transport.write(messages)
