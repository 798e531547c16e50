"""A registry with a schedule of every second, for real workers."""

from datetime import datetime, timedelta
from typing import ClassVar

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce import JobSpec, Payload, Registry, Result, Schedule
from db.users import insert_user


class Note(Payload[Result]):
    """Write down a slot, as the name of a user."""

    job_name: ClassVar[str] = "note"
    slot: datetime


async def note(session: AsyncSession, payload: Note) -> Result:
    """Write it down."""
    await insert_user(session, f"{payload.slot:%Y-%m-%dT%H:%M:%S}")
    return Result()


REGISTRY = Registry(
    JobSpec(Note, note),
    schedules=[
        Schedule("tick", lambda slot: Note(slot=slot), every=timedelta(seconds=1), overlap="queue"),
        Schedule("new-year", lambda slot: Note(slot=slot), cron="0 0 1 1 *", zone="Asia/Kathmandu"),
    ],
)
