"""Schedules that are due: finds and locks them, promises the jobs of their slots, stores how far they have come.

Knows no expression and no payload. ``now`` is the database's time; tests may give another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, DateTime, Integer, LargeBinary, Text, any_, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import ScheduleState

BATCH = 100
"""Most schedules of a fleet that are locked at once, so that many workers share those of midnight."""

_TIME = DateTime(timezone=True)
_NOW = bindparam("now", type_=_TIME)
_DEFINITIONS = bindparam("definitions", type_=ARRAY(BigInteger))
_FLEETS = bindparam("fleets", type_=ARRAY(Text))


async def fleets_of(session: AsyncSession, names: Sequence[str]) -> set[str]:
    """Return the fleets that own the schedules of these names. One round trip."""
    statement = select(ScheduleState.fleet).where(ScheduleState.name == any_(bindparam("names", type_=ARRAY(Text))))
    return set(await session.scalars(statement.distinct(), {"names": names}))


class Look(NamedTuple):
    """What one look has found."""

    now: datetime
    following: datetime | None
    """The next slot of the fleets' schedules that are not due."""

    is_due: bool
    """Whether a slot has come."""


_LOOK = text("""
    SELECT coalesce(:now, now()),
        (SELECT min(first.next_slot) FROM unnest(:fleets) AS known (fleet), LATERAL (
            SELECT next_slot FROM arqonce.schedules WHERE fleet = known.fleet AND next_slot > coalesce(:now, now())
            ORDER BY next_slot LIMIT 1) AS first),
        EXISTS (SELECT FROM arqonce.schedules WHERE fleet = ANY(:fleets) AND next_slot <= coalesce(:now, now())
            AND (:definitions IS NULL OR definition = ANY(:definitions)))
""").bindparams(_NOW, _DEFINITIONS, _FLEETS)


async def look(
    session: AsyncSession, fleets: Sequence[str], definitions: Sequence[int] | None, now: datetime | None
) -> Look:
    """Return whether a schedule of the fleets is due, with one of these definitions or, with ``None``, with any.

    One round trip. Reads two entries of an index for each fleet, and those that are due, however many schedules it has
    and whatever else is in the table.
    """
    parameters = {"now": now, "definitions": definitions, "fleets": fleets}
    return Look(*(await session.execute(text_for(session, _LOOK), parameters)).one())


class DueSchedule(NamedTuple):
    """A schedule whose slot has come, locked until the end of the transaction."""

    name: str
    definition: int
    next_slot: datetime
    paused_until: datetime | None
    is_owed: bool
    """Whether the job that it promised last has not ended."""
    now: datetime


_LOCK = text(f"""
    SELECT due.name, due.definition, due.next_slot, due.paused_until,
        EXISTS (SELECT FROM arqonce.outbox WHERE job_id = due.last_job_id), coalesce(:now, now())
    FROM unnest(:fleets) AS known (fleet), LATERAL (
        SELECT * FROM arqonce.schedules
        WHERE fleet = known.fleet AND next_slot <= coalesce(:now, now()) AND definition = ANY(:definitions)
        ORDER BY next_slot LIMIT {BATCH} FOR UPDATE SKIP LOCKED) AS due
    ORDER BY due.next_slot
""").bindparams(_NOW, _DEFINITIONS, _FLEETS)  # noqa: S608 - the number is a constant


async def lock_due(
    session: AsyncSession, fleets: Sequence[str], definitions: Sequence[int], now: datetime | None
) -> list[DueSchedule]:
    """Lock up to ``BATCH`` due schedules of each fleet that nobody else has locked, those first that wait longest.

    One round trip.
    """
    parameters = {"now": now, "definitions": definitions, "fleets": fleets}
    return [DueSchedule(*row) for row in await session.execute(text_for(session, _LOCK), parameters)]


@dataclass(frozen=True, kw_only=True)
class SlotJob:
    """A job to be promised."""

    job_id: str
    job_name: str
    queue: str
    message: bytes
    request_hash: bytes
    due_at: datetime


_PROMISE = text("""
    WITH wanted AS (
        SELECT * FROM unnest(:job_ids, :job_names, :queues, :messages, :hashes, :dues)
            AS job (job_id, job_name, queue, message, request_hash, due_at)),
    promised AS (
        INSERT INTO arqonce.outbox (job_id, job_name, queue, message, request_hash, due_at, give_at)
        SELECT job_id, job_name, queue, message, request_hash, due_at, due_at FROM wanted
        WHERE NOT EXISTS (SELECT FROM arqonce.receipts WHERE receipts.job_id = wanted.job_id)
            AND NOT EXISTS (SELECT FROM arqonce.dead_jobs WHERE dead_jobs.job_id = wanted.job_id)
        ORDER BY job_id ON CONFLICT (job_id) DO NOTHING RETURNING queue)
    SELECT pg_notify('job_outbox', queue) FROM (SELECT DISTINCT queue FROM promised) AS woken
""").bindparams(
    bindparam("job_ids", type_=ARRAY(Text)),
    bindparam("job_names", type_=ARRAY(Text)),
    bindparam("queues", type_=ARRAY(Text)),
    bindparam("messages", type_=ARRAY(LargeBinary)),
    bindparam("hashes", type_=ARRAY(LargeBinary)),
    bindparam("dues", type_=ARRAY(_TIME)),
)
"""A job that is promised, has ended or is dead under the id of a slot is that slot's, whatever its payload."""


async def promise_slots(session: AsyncSession, jobs: Sequence[SlotJob]) -> None:
    """Insert the jobs into the outbox, those whose ids are known excepted. One round trip; none without jobs."""
    if not jobs:
        return
    parameters = {
        "job_ids": [job.job_id for job in jobs],
        "job_names": [job.job_name for job in jobs],
        "queues": [job.queue for job in jobs],
        "messages": [job.message for job in jobs],
        "hashes": [job.request_hash for job in jobs],
        "dues": [job.due_at for job in jobs],
    }
    await session.execute(text_for(session, _PROMISE), parameters)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a schedule has come."""

    name: str
    next_slot: datetime | None
    last_slot: datetime | None
    """The last slot whose job was promised now; ``None`` if none was."""
    last_job_id: str | None
    skipped: int
    """How many slots were skipped now."""
    last_skipped: datetime | None
    skip_reason: str | None


_ADVANCE = text("""
    UPDATE arqonce.schedules AS schedule SET
        next_slot = done.next_slot,
        last_slot = coalesce(done.last_slot, schedule.last_slot),
        last_job_id = coalesce(done.last_job_id, schedule.last_job_id),
        skipped = schedule.skipped + done.skipped,
        last_skipped = coalesce(done.last_skipped, schedule.last_skipped),
        skip_reason = coalesce(done.skip_reason, schedule.skip_reason),
        updated_at = now()
    FROM unnest(:name, :next_slot, :last_slot, :last_job_id, :skipped, :last_skipped, :skip_reason)
        AS done (name, next_slot, last_slot, last_job_id, skipped, last_skipped, skip_reason)
    WHERE schedule.name = done.name
""").bindparams(
    bindparam("name", type_=ARRAY(Text)),
    bindparam("next_slot", type_=ARRAY(_TIME)),
    bindparam("last_slot", type_=ARRAY(_TIME)),
    bindparam("last_job_id", type_=ARRAY(Text)),
    bindparam("skipped", type_=ARRAY(Integer)),
    bindparam("last_skipped", type_=ARRAY(_TIME)),
    bindparam("skip_reason", type_=ARRAY(Text)),
)


async def advance(session: AsyncSession, done: Iterable[Progress]) -> None:
    """Store how far locked schedules have come. One round trip."""
    rows = list(done)
    fields = Progress.__dataclass_fields__
    parameters: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in fields}
    if rows:
        await session.execute(text_for(session, _ADVANCE), parameters)
