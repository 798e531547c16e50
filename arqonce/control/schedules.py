"""Pauses and resumes schedules, and promises a job of one at once. Each act commits with its row in the audit."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import uuid4

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.execution.diagnosis import diagnose
from arqonce.ledger.audit import record
from arqonce.ledger.namespace import namespace_of
from arqonce.ledger.schedule_control import UNTIL_RESUMED, ListedSchedule, pause_schedules, resume_schedules
from arqonce.outbox import enqueue_in
from arqonce.schedules.schedule import Schedule
from arqonce.schedules.times import Times
from arqonce.spec import Registry
from arqonce.usage import UsageError


async def pause(
    session: AsyncSession, names: Sequence[str], *, until: datetime | timedelta, who: str, why: str | None
) -> set[str]:
    """Skip the slots of these schedules until a time, or for one; return the names that there are.

    Up to three round trips.
    """
    found = await pause_schedules(session, names, until=until, by=who, why=why)
    return await _recorded(session, found, act="schedules pause", who=who, why=why)


async def resume(session: AsyncSession, names: Sequence[str], *, who: str, why: str | None) -> set[str]:
    """End the pauses of these schedules; return the names that there are. Up to two round trips."""
    found = await resume_schedules(session, names)
    return await _recorded(session, found, act="schedules resume", who=who, why=why)


async def _recorded(session: AsyncSession, found: set[str], *, act: str, who: str, why: str | None) -> set[str]:
    if found:
        await record(session, who=who, act=act, target=" ".join(sorted(found)), number=len(found), why=why)
    return found


async def run_now(  # noqa: PLR0913 - the act and its record
    session: AsyncSession, registry: Registry, schedule: Schedule, *, default_queue: str, who: str, why: str | None
) -> str:
    """Promise one more job of the schedule, due now; return the job's id. Its slot is the time of the database.

    Three round trips.

    Raises:
        UsageError: the code of the schedule makes no payload that a worker runs; the text says where it failed.
    """
    now: datetime = await session.scalar(select(func.date_trunc("second", func.now()))) or datetime.now(UTC)
    try:
        payload = schedule.payload_for(now)
        registry.require_kind_of(schedule, payload)
    except Exception as error:  # whatever a project's function raises, whose text may have a person's data
        raise UsageError(f"the schedule {schedule.name} makes no payload for now: {diagnose(error)}") from error
    key, queue = f"schedule:{schedule.name}:now:{uuid4().hex}", schedule.queue or default_queue
    promised = await enqueue_in(session, payload, key=key, queue=queue, schema=namespace_of(session))
    await record(session, who=who, act="schedules run-now", target=schedule.name, number=1, why=why)
    return promised.job_id


def times_of(listed: ListedSchedule) -> Times | None:
    """Return when the schedule is due; ``None`` if that cannot be read here, as of a zone that this machine lacks."""
    state = listed.state
    try:
        return Times(cron=state.cron, every=state.every, zone=state.zone, starts=state.starts, ends=state.ends)
    except ValueError:
        return None


def when(listed: ListedSchedule) -> str:
    """Return when the schedule is due, in words."""
    times, state = times_of(listed), listed.state
    return f"{state.cron or state.every} {state.zone}, which cannot be read here" if times is None else str(times)


def next_slots(listed: ListedSchedule, count: int) -> list[datetime]:
    """Return the next slots that will have jobs, as far as is known now."""
    times, since = times_of(listed), listed.now
    if times is None:
        return []
    if listed.is_paused and listed.state.paused_until is not None:
        if listed.state.paused_until == UNTIL_RESUMED:
            return []
        since = listed.state.paused_until - timedelta(microseconds=1)
    return list(islice(times.after(since), count))
