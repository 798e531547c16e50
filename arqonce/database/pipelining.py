"""Saves two round trips per transaction: sends BEGIN with the first statement, and the last statement with COMMIT.

PostgreSQL executes messages in order and responds at the next Sync. asyncpg sends a Sync after each statement and
waits. Here BEGIN is written directly before the first statement of a transaction, and the statement named as the last
one directly before COMMIT, both without a Sync of their own. After an error the server skips all messages up to the
Sync, COMMIT included. libpq calls this pipeline mode (PostgreSQL's manual, "Message Flow", "Pipelining").

What a job has left in its session (settings, locks, cursors and so on) is removed in the same way, after COMMIT or
ROLLBACK. A connection that cannot be cleaned like this is closed when the job's loan ends.

Uses internals of asyncpg and of SQLAlchemy's adapter for it. Where statements do not stay prepared (PgBouncer), every
message is sent separately.
"""

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy.dialects.postgresql import asyncpg as dialect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.util import await_only

from arqonce.database.asyncpg_connection import ENDED, REFUSED, LentConnection, TransactionEndedError
from arqonce.database.joining import write_with_next
from arqonce.database.limits import allow_pauses
from arqonce.database.loans import Loan
from arqonce.database.protocol import Argument, command, execution
from arqonce.database.suspects import SUSPECT_FUNCTIONS, is_reading, is_setting, is_suspect

_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)

_LOST_NAMES = (asyncpg.InvalidSQLStatementNameError, asyncpg.DuplicatePreparedStatementError)
"""A job has removed one of our prepared statements or left one of its own. The connection is then closed."""

DriverError = dialect.AsyncAdapt_asyncpg_dbapi.Error
"""Base class of the adapter's errors."""

_OURS = (
    "SET CONSTRAINTS ALL IMMEDIATE",
    "RESET SESSION AUTHORIZATION",
    "RESET ROLE",
    "RESET search_path",
)
"""Sent before the last statement of a job that may have changed these, so that it runs with our role and search path.

Constraints that the handler has deferred until COMMIT are checked before that, under the handler's settings.
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
"""Sent after COMMIT or ROLLBACK to remove what a job may have left in its session.

Not ``DISCARD ALL``, which must be sent alone and discards the statements that asyncpg has prepared.
"""

_BEFORE_LAST = b"".join(map(command, _OURS))
_CLEANING = b"".join(map(command, _LEFT))

_RESET = command("RESET ALL") + command("DISCARD SEQUENCES")
"""Sent before the COMMIT of a job of plain statements, to remove what triggers may have left."""

_LOCKS = "SELECT pg_catalog.pg_advisory_unlock_all()"

_PREPARED = f"{_LOCKS}, EXISTS (SELECT FROM pg_catalog.pg_prepared_statements WHERE from_sql)"
"""Also returns whether the job has left a PREPAREd statement. Its name is unknown, so the connection is closed."""

_AUTOCOMMIT = (
    "AUTOCOMMIT was refused: each statement would be stored at once, without the job's receipt, and a job that is "
    "delivered again would take effect twice. Nothing was stored. Remove the isolation level; what cannot run in a "
    "transaction belongs in a migration or in a program of its own"
)


class PipeliningDriver(dialect.AsyncAdapt_asyncpg_dbapi):
    """SQLAlchemy's adapter for asyncpg with pipelining connections: the ``module`` of ``create_async_engine``."""

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
        self._adapt_connection.note(operation)
        await self._adapt_connection.begin_apart()
        return await super()._executemany(operation, seq_of_parameters)


class _ServerSideCursor(dialect.AsyncAdapt_asyncpg_ss_cursor):
    _adapt_connection: "PipeliningConnection"

    async def _prepare_and_execute(self, operation: Any, parameters: Any) -> None:
        await self._adapt_connection.begin_apart()
        await super()._prepare_and_execute(operation, parameters)


class Turn:
    """What one of the jobs that share a transaction has done with the connection."""

    __slots__ = ("has_erred", "has_written", "is_suspect", "opening")

    def __init__(self, opening: tuple[str, ...]) -> None:
        """Send the statements ``opening`` with the first one of the turn, without a round trip."""
        self.opening = opening
        self.has_erred = False
        """Whether a statement has failed."""

        self.has_written = False
        """Whether a statement may have changed something."""

        self.is_suspect = False
        """Whether a statement may have left something in the session or in the transaction, other than settings."""


class PipeliningConnection(dialect.AsyncAdapt_asyncpg_connection):
    """A connection that delays BEGIN and the last statement, to send them together with other messages."""

    _connection: Any
    _transaction: Any
    _last: Any  # a statement and its arguments, or None
    _loan: Loan | None
    _plain_end: Any  # the prepared COMMIT
    _rest: Any  # the prepared statement that ends a thorough cleaning
    __slots__ = (
        "_is_bare", "_is_dirty", "_is_suspect", "_last", "_loan", "_plain_end", "_rest", "is_ever_suspect", "may_set",
        "turn",
    )  # fmt: skip
    _cursor_cls = _Cursor
    _ss_cursor_cls = _ServerSideCursor

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._last = self._loan = self._rest = None
        self.turn: Turn | None = None
        """The turn of one of the jobs that share the transaction, if any do."""
        self._is_dirty = False  # a job has used the session, and it was not cleaned since
        self._is_bare = False  # a handler has got asyncpg's connection
        self._is_suspect = False  # the job may have executed PREPARE, SET ROLE or the like
        self.may_set = True  # any statement may change a setting, through functions in the database
        self.is_ever_suspect = False  # any transaction may do so, through functions in the database

    def lend(self, loan: Loan) -> None:
        """Lend the connection to a job."""
        self._loan = self._connection.loan = loan

    def take_back(self) -> bool:
        """End the job's loan; return whether the connection may be used again. Sends nothing."""
        is_clean = not (self._is_bare or self._is_dirty)
        self._loan = self._connection.loan = self._last = None
        self.isolation_level = self._isolation_setting = None
        self.readonly = self.deferrable = False
        return is_clean

    @property
    def raw(self) -> Any:
        """Asyncpg's connection, for internal use: unlike ``driver_connection``, this does not mark it as bare."""
        return self._connection

    @property
    def driver_connection(self) -> Any:
        """Asyncpg's connection. A job's is in its transaction, and is closed afterwards, because its state is unknown.

        Writes BEGIN without waiting, because the caller need not be in a coroutine.
        """
        if self._loan is not None and not self._is_bare:
            self._is_bare = True
            if self._transaction is None:
                self._transaction = self._held_transaction()
            self._transaction.begin_with_next()
            self._connection._top_xact = self._connection.transaction()  # makes asyncpg's own transactions savepoints
        return self._connection

    def run_async(self, fn: Any) -> Any:
        """Call a coroutine function with asyncpg's connection."""
        return await_only(fn(self.driver_connection))

    def set_isolation_level(self, level: Any) -> None:
        """Set the isolation level of following transactions. A job's connection refuses AUTOCOMMIT."""
        if level == "autocommit" and self._loan is not None:
            raise self._loan.refuse(InvalidRequestError(_AUTOCOMMIT))
        super().set_isolation_level(level)

    @property
    def autocommit(self) -> bool:
        """Whether each statement is its own transaction."""
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
        more = () if self._loan is None else allow_pauses(self._loan.lasts)
        return _HeldTransaction(self._connection, " ".join(words), more)

    @property
    def can_pipeline(self) -> bool:
        """Whether statements can be sent together with others."""
        return self._prepared_statement_cache is not None and not self._is_bare

    async def _start_transaction(self) -> None:
        if self.isolation_level == "autocommit":
            return
        try:
            if self._loan is not None:
                self._is_dirty = True
                if self._rest is None and self.can_pipeline:
                    await self._get_ready()
            transaction = self._held_transaction()
            if not self.can_pipeline or self.isolation_level is not None or self.deferrable:
                # The isolation level must be set before any query, and preparing the first statement is one.
                await transaction.begin_now()
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: the handler raises the right one
            self._handle_exception(error)
        self._transaction = transaction

    async def _get_ready(self) -> None:
        """Prepare for jobs: all of it, or none if that is cancelled and the handler goes on with the connection."""
        rest = await self._connection.prepare(_PREPARED)
        self._plain_end = await self._connection.prepare_control("COMMIT")
        # This query also sends the Sync that asyncpg does not send after preparing.
        self.is_ever_suspect, self.may_set = await self._connection.fetchrow(SUSPECT_FUNCTIONS)
        self._is_suspect |= self.is_ever_suspect
        self._rest = rest

    async def _prepare(self, operation: Any, invalidate_timestamp: Any) -> Any:
        if self._last is not None:
            await self._execute_held()
        self.note(operation)
        prepared = await super()._prepare(operation, invalidate_timestamp)
        if self._transaction is not None:
            self._transaction.begin_with_next()  # with the caller's fetch: nothing is awaited in between
            if self.turn is not None and self.turn.opening:
                write_with_next(self._connection, b"".join(map(command, self.turn.opening)))
                self.turn.opening = ()
        return prepared

    def note(self, operation: str) -> None:
        """Take note of a statement, before it is sent.

        Raises:
            LoanError: it is one of a job whose turn is over.
        """
        if self._loan is not None:
            self._loan.require_turn()
        if is_suspect(operation):
            self._is_suspect = True
        if self.turn is not None:
            self.turn.is_suspect |= is_suspect(operation) or is_setting(operation)
            self.turn.has_written |= not is_reading(operation)

    def why_unshared(self) -> str | None:
        """Return what the next job in this transaction could meet; ``None`` if there is nothing."""
        if self.turn is not None and self.turn.is_suspect:
            return (
                "it sets something, or executes what may: SET, LISTEN, DO, CALL, temporary tables, session locks, "
                "functions that arqonce does not know"
            )
        if self._is_bare:
            return "it uses driver_connection"
        if self._execute_mutex.locked():
            return "a task of it still uses the session"
        if self.isolation_level is not None or self.readonly or self.deferrable:
            return "it sets options of the transaction"
        return None

    def fetch(self, statement: str, arguments: Sequence[Any]) -> Sequence[Any]:
        """Execute a statement and return its rows, without the work that a cursor does for SQLAlchemy."""
        try:
            rows: Sequence[Any] = await_only(self._fetch(statement, arguments))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: the handler raises the right one
            self._forget_stale(statement, error)
            self._handle_exception(error)
        return rows

    def _forget_stale(self, statement: str, error: Exception) -> None:
        """Drop a prepared statement whose tables have changed, which SQLAlchemy would keep using."""
        if isinstance(error, _STALE) and self._prepared_statement_cache is not None:
            self._prepared_statement_cache.pop(statement, None)

    def _handle_exception(self, error: Exception) -> Any:
        if self.turn is not None:
            self.turn.has_erred = True
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
        """Send delayed statements before one that cannot be pipelined."""
        async with self._execute_mutex:
            if self._last is not None:
                await self._execute_held()
            await self._begin_now()

    async def _begin_now(self) -> None:
        if self._transaction is None:
            await self._start_transaction()
        if self._transaction is not None:
            await self._transaction.begin_now()
            if self.turn is not None and self.turn.opening:
                opening, self.turn.opening = self.turn.opening, ()
                await self._connection.control("; ".join(opening))

    def execute_last(self, statement: str, arguments: tuple[Argument, ...]) -> None:
        """Delay the statement until COMMIT. Of a read-only job, it is the only statement that is stored."""
        if self._last is not None:
            raise RuntimeError("the transaction has its last statement already")
        self._last = statement, arguments

    async def _execute_held(self) -> None:
        """Execute the delayed last statement early."""
        (statement, arguments), self._last = self._last, None
        await self._begin_now()
        await self._connection.execute(statement, *arguments)

    def commit(self) -> None:
        """Execute the last statement and commit.

        Raises:
            TransactionEndedError: a job's handler has called this.
        """
        if self._loan is not None and not self._loan.is_ending:
            raise self._loan.refuse(TransactionEndedError(REFUSED.format("commit()")))
        if self._transaction is None and self._last is None:
            return
        try:
            await_only(self._call_and_discard(self._commit))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: the handler raises the right one
            self._handle_exception(error)

    async def _commit(self) -> None:
        async with self._execute_mutex:  # a task that outlives its handler may be executing a statement
            try:
                if self._transaction is None:
                    await self._start_transaction()
                elif self._transaction.has_begun:
                    await self._require_transaction()
                if self.can_pipeline and self._transaction is not None:
                    await self._commit_at_once()
                else:
                    await self._commit_step_by_step()
            except Exception:
                await self._undo()
                raise

    async def _require_transaction(self) -> None:
        """Return if the transaction is still open, by the server's last response.

        Raises:
            TransactionEndedError: it is not.
        """
        if self._is_bare:
            await self._connection.control("SELECT")  # the response to BEGIN may not have arrived yet
        if self._last is not None and not self._connection.is_in_transaction():
            self._last = None
            raise TransactionEndedError(ENDED)

    async def _commit_at_once(self) -> None:
        """Send all messages that end the transaction, and wait once."""
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
                self._transaction.has_begun = True  # so that it is rolled back after an error
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
        """Send the messages that end the transaction, and then clean a job's session."""
        if self._loan is None:
            nothing, _ = await super()._prepare("SELECT", 0)
            write_with_next(self._connection, messages + command(ending))
            await nothing.fetch()
        elif self._is_suspect:
            write_with_next(self._connection, messages + command(ending) + _CLEANING)
            [(_, has_prepared)] = await self._rest.fetch()
            self._is_dirty, self._is_suspect = bool(has_prepared), self.is_ever_suspect
        else:  # a COMMIT
            write_with_next(self._connection, messages if self._reads_only else messages + _RESET)
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
        """End the transaction, and clean a job's session in the same message."""
        if self._loan is None or self._is_bare:  # a bare connection will be closed
            await self._connection.control(command)
        else:
            await self._connection.control("; ".join((command, *_LEFT, _LOCKS)))
            self._is_dirty = False

    async def _undo(self) -> None:
        """Roll back a transaction that could not be committed: SQLAlchemy assumes that it has ended."""
        try:
            await self._roll_back()
        except Exception:  # noqa: BLE001 - the caller raises the first error
            self._connection.terminate()

    def rollback(self) -> None:
        """Roll back, and discard a delayed last statement.

        Raises:
            LoanError: a job whose turn is over has called this.
        """
        if self._loan is not None:
            self._loan.require_turn()
        self._last = None
        if self._transaction is None:
            return
        try:
            await_only(self._call_and_discard(self._roll_back))
        except Exception as error:  # noqa: BLE001 - as in SQLAlchemy: the handler raises the right one
            self._handle_exception(error)

    async def _roll_back(self) -> None:
        if self._transaction is None or not self._transaction.has_begun:
            self._is_dirty = False
        elif self._loan is not None and self._is_suspect and self.can_pipeline:
            await self._end_with(b"", "ROLLBACK")
        else:
            await self._end_apart("ROLLBACK")


class _HeldTransaction:
    """A transaction whose BEGIN is sent with its first statement, and behind BEGIN ``more`` statements."""

    def __init__(self, connection: Any, begin: str, more: Sequence[str] = ()) -> None:
        self._connection = connection
        self._more = more
        self.begin = begin
        self.has_begun = False

    def begin_with_next(self) -> None:
        """Write BEGIN, unless it has been. A statement must follow, with which the server responds to both.

        asyncpg ignores the unrequested response. If it rejects the statement, any other may follow instead.
        """
        if not self.has_begun:
            self.has_begun = True
            write_with_next(self._connection, b"".join(map(command, (self.begin, *self._more))))

    async def begin_now(self) -> None:
        """Send BEGIN, unless it has been."""
        if not self.has_begun:
            self.has_begun = True
            await self._connection.control("; ".join((self.begin, *self._more)))
