"""The record of operators' acts: who did what to what, how many it concerned, when and why. Rows are only added."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.tables import AuditRecord

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


async def list_acts(  # noqa: PLR0913 - what a list may be limited to
    session: AsyncSession,
    *,
    since: timedelta | None,
    limit: int,
    before: int | None = None,
    who: str | None = None,
    act: str | None = None,
) -> Sequence[AuditRecord]:
    """Return the latest acts, the last one first; those ``before`` the one with this id. One round trip."""
    statement = select(AuditRecord).order_by(AuditRecord.id.desc()).limit(limit)
    if since is not None:
        statement = statement.where(AuditRecord.at >= func.now() - since)
    if before is not None:
        statement = statement.where(AuditRecord.id < before)
    if who is not None:
        statement = statement.where(AuditRecord.who == who[:_LONGEST_NAME])
    if act is not None:
        statement = statement.where(AuditRecord.act == act)
    return (await session.scalars(statement)).all()
