"""Schedules of every second: ``WORKER_REGISTRY=chaos.schedules:REGISTRY``. Each slot adds a row.

``CHAOS_SCHEDULES_END`` is when they end, so that a run can drain.
"""

import os
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.payloads import Payload, Result
from arqonce.schedules.schedule import Schedule
from arqonce.spec import JobSpec, Registry

TABLE = "CREATE TABLE slot_effects (name text NOT NULL, slot timestamptz NOT NULL);"
"""One row for each effect; without a constraint, so that a second effect shows."""

END = "CHAOS_SCHEDULES_END"
"""Environment variable of workers: a time in ISO 8601."""

SECOND = timedelta(seconds=1)

_MAX_ATTEMPTS = 50
"""Many, because faults that are no outages end attempts."""

_INSERT = text("INSERT INTO slot_effects VALUES (:name, :slot)")


class NoteSlot(Payload[Result]):
    """Write down that a slot has come."""

    job_name: ClassVar[str] = "note_slot"
    name: str
    slot: datetime


async def note_slot(session: AsyncSession, payload: NoteSlot) -> Result:
    """Write it down."""
    await session.execute(_INSERT, {"name": payload.name, "slot": payload.slot})
    return Result()


def _schedule(name: str, *, cron: str | None = None, every: timedelta | None = None) -> Schedule:
    return Schedule(
        name,
        lambda slot: NoteSlot(name=name, slot=slot.astimezone(UTC)),
        cron=cron,
        every=every,
        zone="Australia/Lord_Howe",
        overlap="queue",
        ends=datetime.fromisoformat(os.environ[END]) if END in os.environ else None,
    )


NAMES = ("by-cron", "by-interval")
"""The schedules, with a slot at each full second."""

REGISTRY = Registry(
    JobSpec(NoteSlot, note_slot, max_attempts=_MAX_ATTEMPTS),
    schedules=[_schedule(NAMES[0], cron="* * * * * *"), _schedule(NAMES[1], every=SECOND)],
)
"""Their jobs."""
