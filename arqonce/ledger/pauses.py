"""Pauses as they are recorded. Knows no queue in Redis."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Interval, Text, bindparam, delete, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import Pause

WHOLE = ""
"""In place of a job's name: the whole queue."""

_PAUSE = text("""
    INSERT INTO arqonce.pauses AS pause (queue, job_name, reason, paused_by, until)
    VALUES (:queue, :job_name, :reason, :who, now() + :length)
    ON CONFLICT (queue, job_name) DO UPDATE SET reason = excluded.reason, paused_by = excluded.paused_by,
        paused_at = excluded.paused_at, until = excluded.until
    RETURNING until
""").bindparams(*(bindparam(name, type_=Text) for name in ("queue", "job_name", "reason", "who")),
                bindparam("length", type_=Interval))  # fmt: skip


async def pause(  # noqa: PLR0913 - the row's columns
    session: AsyncSession, queue: str, job_name: str, *, reason: str, who: str, length: timedelta | None
) -> datetime | None:
    """Pause a kind, or the ``WHOLE`` queue, for a time or until it is resumed; replace an earlier pause of it.

    Return its end. Two round trips.
    """
    await session.execute(delete(Pause).where(Pause.until <= func.now()))  # they are over
    values = {"queue": queue, "job_name": job_name, "reason": reason, "who": who, "length": length}
    ends: datetime | None = await session.scalar(text_for(session, _PAUSE), values)
    return ends


async def resume(session: AsyncSession, queue: str, job_name: str) -> bool:
    """End a pause; return whether there was one. One round trip."""
    statement = delete(Pause).where(Pause.queue == queue, Pause.job_name == job_name, _in_force())
    return (await session.execute(statement.returning(Pause.queue))).first() is not None


async def list_pauses(session: AsyncSession, queues: Sequence[str] | None = None) -> Sequence[Pause]:
    """Return what is paused, of these queues or of all. One round trip."""
    statement = select(Pause).where(_in_force()).order_by(Pause.queue, Pause.job_name)
    if queues is not None:
        statement = statement.where(Pause.queue.in_(queues))
    return (await session.scalars(statement)).all()


def _in_force() -> ColumnElement[bool]:
    return or_(Pause.until.is_(None), Pause.until > func.now())
