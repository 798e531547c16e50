"""Lists jobs of one table in pages, each as quick as the first one, whatever the size of the table. Knows no queue.

Rows come in the order of an index on a time. A page begins behind a place: a time, and how many of the rows with just
this time were read before. So rows that committed together need no further column in the index. Filters that no index
serves are applied to ``MOST_READ`` rows; a page that is not full by then says so, and where to go on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql import ColumnCollection, Subquery

from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob

MOST_READ = 10_000
"""Most rows that are read for a page."""

_BY_INDEX = text("SET LOCAL enable_sort = off")
"""So that rows with the same time always come in the order of the index. A small table would be sorted otherwise, and
to sort by the id as well would take long where a million jobs were promised in one transaction."""

RowT = TypeVar("RowT")

Conditions = Sequence[ColumnElement[bool]]


class Place(NamedTuple):
    """Where a page begins."""

    at: datetime
    behind: int = 0
    """How many rows with this time come before it."""


@dataclass(frozen=True)
class Page(Generic[RowT]):
    """Some rows, and where the next ones are."""

    rows: Sequence[RowT]
    next: Place | None
    """``None``: there are no more."""

    is_partial: bool = False
    """Whether ``MOST_READ`` rows were read, and not enough of them are what was asked for."""


class Done(NamedTuple):
    """A job that has ended with a receipt."""

    job_id: str
    job_name: str
    attempt: int
    at: datetime
    code: str | None
    """Why it was refused; ``None``: it succeeded."""


class Promised(NamedTuple):
    """A job that is promised and has not ended."""

    job_id: str
    job_name: str
    at: datetime
    """When a relay writes it into Redis next."""

    created_at: datetime
    due_at: datetime
    dispatched_at: datetime | None
    dispatches: int


class Letter(NamedTuple):
    """A dead letter, without its message."""

    job_id: str
    job_name: str | None
    at: datetime
    queue: str | None
    reason: str
    attempts: int
    explanation: str


@dataclass(frozen=True)
class _Listing(Generic[RowT]):
    """A table in the order of one of its times."""

    row: Callable[..., RowT]
    columns: Sequence[ColumnElement[Any] | InstrumentedAttribute[Any]]
    """One for each field of the row."""

    time: InstrumentedAttribute[datetime]
    is_ascending: bool = False

    def window(self, served: Conditions, after: Place | None) -> Subquery:
        """Return the rows that may be read, with how many of all rows, and of those before its time, a row is."""
        order = self._order(self.time)
        conditions = list(served)
        if after is not None:
            conditions.append(self.time >= after.at if self.is_ascending else self.time <= after.at)
        numbers = func.row_number().over(order_by=order), func.rank().over(order_by=order)
        fields = [column.label(name) for name, column in zip(self._fields, self.columns, strict=True)]
        chosen = select(*fields, numbers[0].label("number"), numbers[1].label("first"))
        behind = 0 if after is None else after.behind
        return chosen.where(*conditions).order_by(order).offset(behind).limit(MOST_READ).subquery("readable")

    @property
    def _fields(self) -> Sequence[str]:
        fields: Sequence[str] = self.row._fields  # type: ignore[attr-defined] # of a NamedTuple
        return fields

    def _order(self, time: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[Any]:
        return time.asc() if self.is_ascending else time.desc()

    async def page(
        self,
        session: AsyncSession,
        *,
        served: Conditions = (),
        filters: Callable[[ColumnCollection[str, Any]], Conditions] = lambda _: (),
        after: Place | None,
        limit: int,
    ) -> Page[RowT]:
        """Return a page. An index serves ``served`` and the order. Two round trips, three if it is not full."""
        await session.execute(_BY_INDEX)
        readable = self.window(served, after)
        conditions = filters(readable.c)
        ordered = select(readable).order_by(self._order(readable.c.at))
        found = (await session.execute(ordered.where(*conditions).limit(limit + 1))).all()
        rows = [self.row(*found_row[:-2]) for found_row in found[:limit]]
        if len(found) > limit:
            return Page(rows, _behind(found[limit - 1]))
        if not conditions:
            return Page(rows, None)
        last = (await session.execute(ordered.offset(MOST_READ - 1).limit(1))).first()
        return Page(rows, None if last is None else _behind(last), is_partial=last is not None)


def _behind(row: Row[Any]) -> Place:
    return Place(row.at, row.number - row.first + 1)


_RECEIPTS = _Listing(
    Done,
    (
        JobReceipt.job_id,
        JobReceipt.job_name,
        JobReceipt.attempt,
        JobReceipt.finished_at,
        JobReceipt.failure["type"].astext,
    ),
    JobReceipt.finished_at,
)

_LETTERS = _Listing(
    Letter,
    (
        DeadJob.job_id,
        DeadJob.job_name,
        DeadJob.died_at,
        DeadJob.queue,
        DeadJob.reason,
        DeadJob.attempts,
        DeadJob.explanation,
    ),
    DeadJob.died_at,
)

_PROMISES = _Listing(
    Promised,
    (
        PromisedJob.job_id,
        PromisedJob.job_name,
        PromisedJob.give_at,
        PromisedJob.created_at,
        PromisedJob.due_at,
        PromisedJob.dispatched_at,
        PromisedJob.dispatches,
    ),
    PromisedJob.give_at,
    is_ascending=True,
)


async def list_receipts(
    session: AsyncSession, *, job_name: str | None, refused: bool, after: Place | None, limit: int
) -> Page[Done]:
    """Return jobs that have ended with a result, or those ``refused``, the latest first. Up to three round trips."""

    def filters(columns: ColumnCollection[str, Any]) -> Conditions:
        how = columns.code.is_not(None) if refused else columns.code.is_(None)
        return [how, *([] if job_name is None else [columns.job_name == job_name])]

    return await _RECEIPTS.page(session, filters=filters, after=after, limit=limit)


async def list_promises(
    session: AsyncSession, *, queue: str, job_name: str | None, after: Place | None, limit: int
) -> Page[Promised]:
    """Return promised jobs of a queue, those first that a relay writes into Redis next. Up to three round trips."""

    def filters(columns: ColumnCollection[str, Any]) -> Conditions:
        return [] if job_name is None else [columns.job_name == job_name]

    served = [PromisedJob.queue == queue]
    return await _PROMISES.page(session, served=served, filters=filters, after=after, limit=limit)


async def list_letters(  # noqa: PLR0913 - what can be asked
    session: AsyncSession,
    *,
    job_name: str | None,
    reason: str | None,
    queue: str | None = None,
    is_unnamed: bool = False,
    after: Place | None,
    limit: int,
) -> Page[Letter]:
    """Return dead letters, the latest first. Up to three round trips.

    ``is_unnamed`` asks for those whose message names no job, or cannot be read. With a reason, and with either of both,
    an index has them.
    """
    name = DeadJob.job_name.is_(None) if is_unnamed else None if job_name is None else DeadJob.job_name == job_name
    by_index = [] if name is None or reason is None else [name, DeadJob.reason == reason]

    def filters(columns: ColumnCollection[str, Any]) -> Conditions:
        wanted = {"queue": queue} if by_index else {"job_name": job_name, "reason": reason, "queue": queue}
        equal = [columns[name] == value for name, value in wanted.items() if value is not None]
        return [*equal, *([columns.job_name.is_(None)] if is_unnamed and not by_index else [])]

    return await _LETTERS.page(session, served=by_index, filters=filters, after=after, limit=limit)
