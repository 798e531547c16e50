"""Lends connections to jobs, and takes them back whatever a job's handler does. Knows no statement.

A context variable identifies the borrowing job. Tasks that a handler starts inherit it. So a task that outlives its job
gets no more connections, and the connections that it holds are closed.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, PoolProxiedConnection
from sqlalchemy.util import await_only
from sqlalchemy.util.concurrency import in_greenlet

_SPARES = 2
"""How many connections beyond its size a pool opens, for handlers that use a second one.

If these counted towards the pool's size, handlers that hold one connection each could deadlock waiting for a second.
"""

_SPARE_LIMIT = timedelta(seconds=5)
"""Longest wait for a second connection."""

_CLOSE_LIMIT = timedelta(seconds=1)
"""Longest wait, at the end, for a server to take leave."""

_NO_SPARE = (
    "the handler needs a second connection, of which a worker has only a few: use the session that it was called with"
)

_OVER = (
    "this job has ended, and its session and connection are closed. In the handler, await everything that uses them, "
    "tasks that it starts included"
)


class LoanError(InvalidRequestError):
    """A job that has ended has requested a connection; the text names the cure."""


class Lendable(Protocol):
    """A connection that can be lent."""

    def lend(self, loan: "Loan") -> None:
        """Let the loan's job use the connection."""

    def take_back(self) -> bool:
        """End the loan; return whether the connection may be used again."""


class Loan:
    """The connections lent to one job, from its begin to its end. A job that ``reads_only`` stores nothing.

    Its transactions may last, and pause, for as long as it ``lasts``.
    """

    def __init__(self, *, reads_only: bool = False, lasts: timedelta = timedelta(0)) -> None:
        self.reads_only = reads_only
        self.lasts = lasts
        self.is_ending = False
        """Whether the handler has returned. Only then may its transaction be committed."""

        self.fault: InvalidRequestError | None = None
        """The first forbidden action of the handler. Its job fails, even if the handler caught the error."""

        self.turn: object = None
        """Whose turn it is, if several jobs share the loan; ``None`` is the turn of the loan's owner."""

        self.places = 0
        """How many of the pool's places the job holds."""

        self._is_over = False
        self._connections: list[PoolProxiedConnection] = []

    def refuse(self, error: InvalidRequestError) -> InvalidRequestError:
        """Record the error as the job's fault, and return it."""
        self.fault = self.fault or error
        return error

    def require_current(self) -> None:
        """Raise ``LoanError`` if the job has ended."""
        if self._is_over:
            raise LoanError(_OVER)
        self.require_turn()

    def require_turn(self) -> None:
        """Raise ``LoanError`` if this task belongs to a job whose turn is over."""
        if _turn.get() is not self.turn:
            raise LoanError(_OVER)

    @contextmanager
    def turn_of(self, turn: object) -> Iterator[None]:
        """Let only this task, and the tasks that it starts meanwhile, use the connections."""
        self.turn, token = turn, _turn.set(turn)
        try:
            yield
        finally:
            _turn.reset(token)
            self.turn = None

    def note(self, connection: PoolProxiedConnection) -> None:
        """Remember a connection."""
        self._connections.append(connection)

    def end(self) -> int:
        """End the loan and close connections that are still in use; return how many. No round trip."""
        self._is_over = True
        left = [connection for connection in self._connections if connection.is_valid]
        for connection in left:
            _close(connection)
        return len(left)


def _close(connection: PoolProxiedConnection) -> None:
    adapted: Any = connection.dbapi_connection
    is_detached = connection.is_detached
    connection.invalidate()
    if is_detached:  # the pool does not close it
        adapted.terminate()


_loan: ContextVar[Loan | None] = ContextVar("loan", default=None)
_turn: ContextVar[object] = ContextVar("turn", default=None)


def current_loan() -> Loan | None:
    """Return the loan of the current job; ``None`` outside of jobs."""
    return _loan.get()


@contextmanager
def borrowing(loan: Loan) -> Iterator[None]:
    """Lend the connections that this task and the tasks it starts request under this loan."""
    token = _loan.set(loan)
    try:
        yield
    finally:
        _loan.reset(token)


async def _close_together(adapters: Sequence[Any]) -> None:
    drivers = [adapter._connection for adapter in adapters]  # noqa: SLF001 - driver_connection would mark it as bare
    closing = [asyncio.create_task(driver.close()) for driver in drivers]
    if closing:
        await asyncio.wait(closing, timeout=_CLOSE_LIMIT.total_seconds())
    for driver in drivers:
        driver.terminate()  # does nothing to one that is closed
    for task in closing:
        task.cancel()
    if closing:
        ended, _ = await asyncio.wait(closing, timeout=_CLOSE_LIMIT.total_seconds())
        await asyncio.gather(*ended, return_exceptions=True)


class LendingPool(AsyncAdaptedQueuePool):
    """A pool that knows to which job each connection is lent. The connections must be ``Lendable``."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - SQLAlchemy's
        super().__init__(*args, **options)
        self._loans: dict[ConnectionPoolEntry, Loan] = {}
        self._spare: set[ConnectionPoolEntry] = set()
        self._free_spares = asyncio.Semaphore(_SPARES)

    def connect(self) -> PoolProxiedConnection:
        """Return a connection.

        Raises:
            LoanError: the requesting job has ended.
            TimeoutError: none was free in time.
        """
        connection, loan = super().connect(), _loan.get()
        if loan is not None:
            lendable: Lendable = connection.dbapi_connection  # type: ignore[assignment] # all are
            lendable.lend(loan)
            loan.note(connection)
        return connection

    def dispose(self) -> None:
        """Close idle connections, all at once and in limited time: one after the other, each waits for its server."""
        if in_greenlet():
            idle = [self._pool.get(block=False) for _ in range(self._pool.qsize())]
            await_only(_close_together([entry.dbapi_connection for entry in idle if entry.dbapi_connection]))
            for entry in idle:
                entry.close()
        super().dispose()

    def _do_get(self) -> ConnectionPoolEntry:
        loan = _loan.get()
        if loan is None:
            return super()._do_get()
        loan.require_current()
        loan.places += 1
        try:
            record = super()._do_get() if loan.places == 1 else self._get_spare()
        except BaseException:
            loan.places -= 1
            raise
        self._loans[record] = loan
        try:
            loan.require_current()  # it may have ended meanwhile
        except LoanError:
            self._do_return_conn(record)
            raise
        return record

    def _get_spare(self) -> ConnectionPoolEntry:
        try:
            await_only(self._wait_for_spare())
        except TimeoutError as error:
            raise PoolTimeoutError(_NO_SPARE) from error
        self._max_overflow += 1
        try:
            record = super()._do_get()
        except BaseException:
            self._return_spare()
            raise
        self._spare.add(record)
        return record

    async def _wait_for_spare(self) -> None:
        async with asyncio.timeout(_SPARE_LIMIT.total_seconds()):  # wait_for may swallow a cancellation on Python 3.11
            await self._free_spares.acquire()

    def _return_spare(self) -> None:
        self._max_overflow -= 1
        self._free_spares.release()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        lendable: Lendable | None = record.dbapi_connection  # type: ignore[assignment] # all are
        loan = self._loans.pop(record, None)
        try:
            if loan is not None:
                loan.places -= 1
                if lendable is not None and not lendable.take_back():
                    record.invalidate()
        finally:
            super()._do_return_conn(record)
            if record in self._spare:
                self._spare.remove(record)
                self._return_spare()
