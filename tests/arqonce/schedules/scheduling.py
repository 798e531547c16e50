"""What tests of schedulers share: a job, a clock that they set, and looks at what was promised."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce import JobSpec, Payload, Registry, Result, Schedule
from arqonce.schedules.scheduler import Scheduler

Sessions = async_sessionmaker[AsyncSession]

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


class Count(Payload[Result]):
    """Count a slot."""

    job_name: ClassVar[str] = "count"
    slot: datetime | None = None


async def _count(_session: Any, _payload: Count) -> Result:  # noqa: ANN401 - never called
    return Result()


SPEC = JobSpec(Count, _count)


@dataclass
class Clock:
    """The time, as tests set it."""

    now: datetime = NOON

    def __call__(self) -> datetime:
        """Say it."""
        return self.now


def every_minute(name: str = "tick", make: Callable[[datetime], Count] | None = None, **options: Any) -> Schedule:  # noqa: ANN401 - handed on
    """Make a schedule with a slot at each full minute."""
    payload: Any = make or (lambda slot: Count(slot=slot))
    said: dict[str, Any] = {"every": MINUTE, "overlap": "queue"} | options
    return Schedule(name, payload, **said)


async def started(
    sessions: Sessions, clock: Clock, *schedules: Schedule, queue: str = "arq:queue", removes: bool = True
) -> Scheduler:
    """Start what a worker with these schedules has."""
    registry = Registry(SPEC, schedules=schedules)
    scheduler = Scheduler(sessions, registry, queue=queue, removes=removes, clock=clock)
    await scheduler.renew()
    return scheduler


async def promised(sessions: Sessions) -> list[str]:
    """Return the ids of the promised jobs in the order in which they are due."""
    async with sessions() as session:
        return list(await session.scalars(text("SELECT job_id FROM arqonce.outbox ORDER BY due_at, job_id")))


async def ends(sessions: Sessions, *job_ids: str) -> None:
    """Let jobs end."""
    async with sessions.begin() as session:
        for job_id in job_ids:
            await session.execute(text("DELETE FROM arqonce.outbox WHERE job_id = :id"), {"id": job_id})
            statement = "INSERT INTO arqonce.receipts VALUES (:id, 'count', '', '{}', NULL, 1)"
            await session.execute(text(statement), {"id": job_id})


async def row(sessions: Sessions, name: str = "tick") -> dict[str, Any] | None:
    """Return what is known of a schedule."""
    async with sessions() as session:
        found = await session.execute(text("SELECT * FROM arqonce.schedules WHERE name = :name"), {"name": name})
        known = found.mappings().one_or_none()
    return None if known is None else dict(known)


def ids(first: datetime, count: int, name: str = "tick") -> list[str]:
    """Return the ids of the slots of so many minutes."""
    return [f"schedule:{name}:{first + number * MINUTE:%Y-%m-%dT%H:%M:%SZ}" for number in range(count)]
