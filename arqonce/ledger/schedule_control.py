"""What operators see of schedules, and how they pause them. Needs no code of the jobs."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ARRAY, DateTime, Text, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob, ScheduleState

UNTIL_RESUMED = datetime(9999, 1, 1, tzinfo=UTC)
"""The end of a pause that somebody must end."""


_MOST_PAUSED = 100


class ListedSchedule(NamedTuple):
    """A schedule, what became of its last job, and the database's time."""

    state: ScheduleState
    is_owed: bool
    has_receipt: bool
    dead_reason: str | None
    now: datetime

    @property
    def last_outcome(self) -> str | None:
        """``promised``, ``complete``, ``failed: REASON``, or ``not found`` if its record was deleted.

        ``None`` if it has promised no job yet.
        """
        if self.state.last_job_id is None:
            return None
        if self.has_receipt:
            return "complete"
        if self.is_owed:
            return "promised"
        return "not found" if self.dead_reason is None else f"failed: {self.dead_reason}"

    @property
    def is_paused(self) -> bool:
        """Whether slots that come now are skipped."""
        return self.state.paused_until is not None and self.state.paused_until > self.now


async def list_schedules(
    session: AsyncSession,
    *,
    names: Sequence[str] | None = None,
    is_paused: bool = False,
    after: str | None = None,
    limit: int | None = None,
) -> list[ListedSchedule]:
    """Return schedules by name: all, these ``names``, those that are paused, those ``after`` a name. One round trip."""
    state = ScheduleState
    statement = (
        select(
            state,
            PromisedJob.job_id.is_not(None),
            JobReceipt.job_id.is_not(None),
            DeadJob.reason,
            func.now(),
        )
        .outerjoin(PromisedJob, PromisedJob.job_id == state.last_job_id)
        .outerjoin(JobReceipt, JobReceipt.job_id == state.last_job_id)
        .outerjoin(DeadJob, DeadJob.job_id == state.last_job_id)
        .order_by(state.name)
        .limit(limit)
    )
    if names is not None:
        statement = statement.where(state.name.in_(names))
    if is_paused:
        statement = statement.where(state.paused_until > func.now())
    if after is not None:
        statement = statement.where(state.name > after)
    return [ListedSchedule(*found) for found in await session.execute(statement)]


async def paused_schedules(session: AsyncSession) -> Sequence[ScheduleState]:
    """Return those whose slots are skipped now, by name, and no more than 100. One round trip."""
    paused = select(ScheduleState).where(ScheduleState.paused_until > func.now())
    return (await session.scalars(paused.order_by(ScheduleState.name).limit(_MOST_PAUSED))).all()


_PAUSE = text("""
    UPDATE arqonce.schedules
    SET paused_until = :until, paused_at = now(), paused_by = :by, paused_why = :why, updated_at = now()
    WHERE name = ANY(:names) RETURNING name
""").bindparams(
    bindparam("names", type_=ARRAY(Text)),
    bindparam("until", type_=DateTime(timezone=True)),
    bindparam("by", type_=Text),
    bindparam("why", type_=Text),
)


async def pause_schedules(
    session: AsyncSession, names: Sequence[str], *, until: datetime | timedelta, by: str, why: str | None
) -> set[str]:
    """Skip the slots of these schedules until a time, or for one; return the names of those that there are.

    One round trip, and one more for a duration, which counts from the database's time.
    """
    if isinstance(until, timedelta):
        until = (await session.scalars(select(func.now()))).one() + until
    parameters = {"names": names, "until": until, "by": by, "why": why}
    return set(await session.scalars(text_for(session, _PAUSE), parameters))


_RESUME = text("""
    UPDATE arqonce.schedules
    SET paused_until = CASE WHEN paused_until > now() THEN now() ELSE paused_until END,
        paused_by = NULL, paused_why = NULL, updated_at = now()
    WHERE name = ANY(:names) RETURNING name
""").bindparams(bindparam("names", type_=ARRAY(Text)))


async def resume_schedules(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """End the pauses of these schedules: slots that come from now on have jobs. One round trip."""
    return set(await session.scalars(text_for(session, _RESUME), {"names": names}))
