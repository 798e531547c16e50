"""The times at which Redis was found emptied, restarted or replaced. Knows no Redis."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.tables import RedisLoss


async def note_loss(session: AsyncSession, epoch: int, *, given_again: int) -> datetime:
    """Note that ``epoch`` began with a loss, and how many jobs more were given again; return when it was noticed first.

    One round trip. Relays that notice the same loss write one row.
    """
    statement = insert(RedisLoss).values(epoch=epoch, given_again=given_again)
    total = RedisLoss.given_again + statement.excluded.given_again
    noted = statement.on_conflict_do_update(index_elements=[RedisLoss.epoch], set_={"given_again": total})
    noticed_at: datetime = (await session.scalars(noted.returning(RedisLoss.noticed_at))).one()
    return noticed_at


async def latest_losses(session: AsyncSession, *, since: timedelta, limit: int) -> Sequence[RedisLoss]:
    """Return the losses of late, the last one first. One round trip."""
    statement = select(RedisLoss).where(RedisLoss.noticed_at > func.now() - since)
    return (await session.scalars(statement.order_by(RedisLoss.noticed_at.desc()).limit(limit))).all()
