"""The record of operators' acts: who did what to what, how many it concerned, when and why. Rows are only added."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import func, insert, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from arqonce.ledger.tables import AuditRecord

MOST_READ = 10_000
"""Most acts that are read for a page."""

_LONGEST = 1000
"""Characters of a target or a reason that are kept: an act may name thousands of ids."""


_LONGEST_NAME = 200
"""Characters of a person's name that are kept: an index has it."""


async def record(  # noqa: PLR0913 - the row's columns
    session: AsyncSession, *, who: str, act: str, target: str, number: int, why: str | None
) -> None:
    """Add a row, in the transaction of the act if it has one. One round trip.

    ``act`` is the command, such as ``queue pause``; ``target`` what it was done to; ``number`` how many it concerned.
    """
    shown = target if len(target) <= _LONGEST else f"{target[: _LONGEST - 4]} ..."
    reason = None if why is None else why[:_LONGEST]
    values = {"who": who[:_LONGEST_NAME], "act": act, "target": shown, "number": number, "why": reason}
    await session.execute(insert(AuditRecord).values(**values))


async def list_acts(session: AsyncSession, *, since: timedelta | None, limit: int) -> Sequence[AuditRecord]:
    """Return the latest acts, the last one first. One round trip."""
    statement = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(limit)
    if since is not None:
        statement = statement.where(AuditRecord.at >= func.now() - since)
    return (await session.scalars(statement)).all()


class ActsPage(NamedTuple):
    """Some acts, and where older ones begin."""

    acts: Sequence[AuditRecord]
    before: int | None
    """Older acts are before the one with this id; ``None``: there are none."""

    is_partial: bool = False
    """Whether ``MOST_READ`` acts were read, and not enough of them are what was asked for."""


async def page_of_acts(  # noqa: PLR0913 - what a list may be limited to
    session: AsyncSession, *, before: int | None, who: str | None, act: str | None, since: timedelta | None, limit: int
) -> ActsPage:
    """Return the latest acts ``before`` the one with this id. An index has those of a person. Up to two round trips.

    Of the others ``MOST_READ`` are read for a page, which then says where to go on.
    """
    served = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(MOST_READ)
    if before is not None:
        served = served.where(AuditRecord.id < before)
    if who is not None:
        served = served.where(AuditRecord.who == who[:_LONGEST_NAME])
    read = aliased(AuditRecord, served.subquery())
    ordered = select(read).order_by(read.id.desc())
    wanted = ordered if act is None else ordered.where(read.act == act)
    if since is not None:
        wanted = wanted.where(read.at >= func.now() - since)
    found = (await session.scalars(wanted.limit(limit + 1))).all()
    if len(found) > limit:
        return ActsPage(found[:limit], found[limit - 1].id)
    is_recent = true() if since is None else read.at >= func.now() - since
    last = (await session.execute(ordered.add_columns(is_recent).offset(MOST_READ - 1).limit(1))).first()
    return ActsPage(found, last[0].id, is_partial=True) if last is not None and last[1] else ActsPage(found, None)
