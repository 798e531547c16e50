"""Dead letters: jobs that failed for good, with their message and the reason. Knows no queue."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, cast

from sqlalchemy import ColumnElement, case, delete, exists, func, literal, or_, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from arqonce.database.driver import fetch_by_driver
from arqonce.ledger.namespace import sql_for
from arqonce.ledger.tables import DeadJob, JobReceipt


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A job that failed for good."""

    job_id: str
    job_name: str | None
    message: bytes
    reason: str
    explanation: str
    error: str
    sqlstate: str | None
    attempts: int
    queue: str
    request_hash: bytes | None = None
    """The hash of the request; ``None`` if the message could not be read."""


@dataclass(frozen=True, kw_only=True)
class DeadFilter:
    """Selects dead letters; a field that is ``None`` selects all."""

    job_ids: Collection[str] | None = None
    job_name: str | None = None
    reason: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    is_unnamed: bool = False
    """Select those whose message names no job, or cannot be read."""

    def __str__(self) -> str:
        """Describe what is selected, for the record of an act."""
        job = "" if self.is_unnamed else self.job_name
        parts = {"job": job, "reason": self.reason, "since": self.since and f"{self.since:%Y-%m-%dT%H:%MZ}"}
        said = [f"{name}={value}" for name, value in parts.items() if value is not None]
        return " ".join([*(self.job_ids or ["all"]), *said])

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filter as SQL. It omits letters whose request has taken effect meanwhile."""
        return [~_has_taken_effect(DeadJob), *self.matches()]

    def matches(self) -> list[ColumnElement[bool]]:
        """Return the same, with letters whose request has taken effect."""
        conditions: list[ColumnElement[bool]] = []
        if self.job_ids is not None:
            conditions.append(DeadJob.job_id.in_(self.job_ids))
        if self.job_name is not None:
            conditions.append(DeadJob.job_name == self.job_name)
        if self.is_unnamed:
            conditions.append(DeadJob.job_name.is_(None))
        if self.reason is not None:
            conditions.append(DeadJob.reason == self.reason)
        if self.since is not None:
            conditions.append(DeadJob.died_at >= self.since)
        if self.until is not None:
            conditions.append(DeadJob.died_at <= self.until)
        return conditions


def _has_taken_effect(letter: type[DeadJob]) -> ColumnElement[bool]:
    is_same = or_(letter.request_hash.is_(None), letter.request_hash == JobReceipt.request_hash)
    return exists(JobReceipt.job_id).where(JobReceipt.job_id == letter.job_id, is_same)


_LOOK_UP = text(
    "SELECT set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), "
    "set_config('enable_sort', 'off', true)"
)
"""Let PostgreSQL look up the receipts of a few letters, in the order of an index, until the end of the transaction.
Otherwise it would read ten million receipts for a step of 500 letters, which takes many seconds."""


async def lock_dead_job(session: AsyncSession, job_id: str) -> DeadJob | None:
    """Return the dead letter, locked until the end of the transaction; ``None`` if there is none. One round trip."""
    return (await session.scalars(select(DeadJob).where(DeadJob.job_id == job_id).with_for_update())).one_or_none()


async def insert_dead_letter(session: AsyncSession, letter: DeadLetter) -> bool:
    """Insert or replace the job's dead letter; return whether it was written.

    It is not if the job has a receipt, because another worker has completed it. Two round trips.
    """
    if await session.scalar(select(exists(JobReceipt.job_id).where(JobReceipt.job_id == letter.job_id))):
        return False
    statement = insert(DeadJob).values(**vars(letter))
    replaced: dict[str, ColumnElement[Any]] = {name: statement.excluded[name] for name in (*vars(letter), "died_at")}
    # A job delivered again after its letter has no outbox row any more, and the hash of an unreadable message is known
    # only from the earlier letter.
    known = case((DeadJob.message == statement.excluded.message, DeadJob.request_hash))
    replaced["request_hash"] = func.coalesce(statement.excluded.request_hash, known)
    await session.execute(statement.on_conflict_do_update(index_elements=[DeadJob.job_id], set_=replaced))
    return True


async def dead_jobs(session: AsyncSession, which: DeadFilter, *, limit: int) -> Sequence[DeadJob]:
    """Return at most ``limit`` dead letters, the latest first. Two round trips."""
    await session.execute(_LOOK_UP)
    statement = select(DeadJob).where(*which.conditions()).order_by(DeadJob.died_at.desc(), DeadJob.job_id).limit(limit)
    return (await session.scalars(statement)).all()


_NEW = """
    WITH letter AS (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bytea[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::integer[], $11::text[]) AS letter
            (asked_id, job_id, job_name, message, request_hash, reason, explanation, error, sqlstate, attempts, queue)),
    promised AS (
        SELECT letter.job_id, outbox.job_id AS asked_id, outbox.request_hash, outbox.message = letter.message
            OR (outbox.job_name = letter.job_name AND outbox.request_hash = letter.request_hash) IS TRUE AS is_same
        FROM letter JOIN arqonce.outbox ON outbox.job_id = letter.asked_id),
    written AS (
        INSERT INTO arqonce.dead_jobs
            (job_id, job_name, message, request_hash, reason, explanation, error, sqlstate, attempts, queue)
        SELECT job_id, job_name, message, CASE WHEN is_same THEN promised.request_hash ELSE letter.request_hash END,
            reason, explanation, error, sqlstate, attempts, queue
        FROM letter LEFT JOIN promised USING (job_id)
        WHERE NOT EXISTS (SELECT FROM arqonce.receipts WHERE receipts.job_id = letter.job_id)
            AND (is_same IS NOT FALSE OR letter.job_id <> letter.asked_id)
        ORDER BY job_id
        ON CONFLICT (job_id) DO UPDATE
            SET (job_name, message, request_hash, reason, explanation, error, sqlstate, attempts, queue, died_at)
                = (excluded.job_name, excluded.message, coalesce(excluded.request_hash, dead_jobs.request_hash),
                    excluded.reason, excluded.explanation, excluded.error, excluded.sqlstate, excluded.attempts,
                    excluded.queue, excluded.died_at)
            WHERE dead_jobs.message = excluded.message AND excluded.message <> ''
        RETURNING job_id),
    settled AS (
        DELETE FROM arqonce.outbox USING written JOIN promised USING (job_id)
        WHERE is_same AND outbox.job_id = promised.asked_id)
    SELECT job_id FROM written
"""
"""Nothing is promised any more whose letter is written; and of a letter that is not written, everything stays."""


async def insert_new_dead_letters(session: AsyncSession, letters: Mapping[str, DeadLetter]) -> set[str]:
    """Insert the letters whose ids no table has, and those of promised jobs, which are no longer promised.

    The keys are the ids of the jobs; a letter may have another one. Returns the ids of the letters that were inserted.
    A letter of the same request is replaced: its job was put back, and has died again. One round trip.
    """
    fields = ("job_id", "job_name", "message", "request_hash", "reason", "explanation", "error", "sqlstate", "attempts")
    columns = [[getattr(letter, field) for letter in letters.values()] for field in (*fields, "queue")]
    return {str(row[0]) for row in await fetch_by_driver(session, sql_for(session, _NEW), list(letters), *columns)}


class Shown(NamedTuple):
    """What a list shows of a dead letter: all but its message."""

    job_id: str
    job_name: str | None
    queue: str | None
    reason: str
    attempts: int
    died_at: datetime
    explanation: str


async def list_dead_jobs(session: AsyncSession, which: DeadFilter, *, limit: int) -> list[Shown]:
    """Return at most ``limit`` dead letters without their messages, the latest first. Two round trips."""
    await session.execute(_LOOK_UP)
    columns = [getattr(DeadJob, name) for name in Shown._fields]
    latest = DeadJob.died_at.desc(), DeadJob.job_id
    rows = await session.execute(select(*columns).where(*which.conditions()).order_by(*latest).limit(limit))
    return [Shown(*row) for row in rows]


class Place(NamedTuple):
    """Where a dead letter is in the order of their times, the oldest first."""

    died_at: datetime
    job_id: str
    size: int
    """Bytes of its message."""


STEP = 500
"""Most letters of a step."""

STEP_BYTES = 4 * 1024 * 1024
"""Most bytes of a step's messages; one letter at least."""

MOST_PLACES = 50_000
"""Most places that one query returns: 10 MB. Where a million letters have one time, each query sorts all of them."""


async def oldest_dead_jobs(
    session: AsyncSession, which: DeadFilter, *, after: Place | None, most: int = MOST_PLACES
) -> Sequence[Place]:
    """Return places of at most ``most`` letters behind ``after``, the oldest first. Two round trips."""
    await session.execute(_LOOK_UP)
    conditions = which.conditions()
    if after is not None:
        conditions.append(tuple_(DeadJob.died_at, DeadJob.job_id) > tuple_(*map(literal, after[:2])))
    places = select(DeadJob.died_at, DeadJob.job_id, func.octet_length(DeadJob.message)).where(*conditions)
    places = places.order_by(DeadJob.died_at, DeadJob.job_id).limit(min(most, MOST_PLACES))
    return [Place(*row) for row in await session.execute(places)]


def in_steps(places: Sequence[Place]) -> Iterator[list[str]]:
    """Return the ids of the letters, in steps of at most ``STEP`` letters and ``STEP_BYTES`` bytes."""
    ids: list[str] = []
    total = 0
    for place in places:
        if ids and (len(ids) == STEP or total + place.size > STEP_BYTES):
            yield ids
            ids, total = [], 0
        ids.append(place.job_id)
        total += place.size
    if ids:
        yield ids


async def dead_jobs_of_step(session: AsyncSession, which: DeadFilter) -> Sequence[DeadJob]:
    """Return the letters, the oldest first; ``which`` names the ids. Two round trips."""
    await session.execute(_LOOK_UP)
    found = await session.scalars(select(DeadJob).where(*which.conditions()))
    return sorted(found.all(), key=lambda letter: (letter.died_at, letter.job_id))


async def now_of_database(session: AsyncSession) -> datetime:
    """Return the time of the clock by which letters have died. One round trip."""
    return cast("datetime", await session.scalar(select(func.clock_timestamp())))


async def discard_step(session: AsyncSession, which: DeadFilter) -> int:
    """Delete the letters, ``which`` names the ids, that nobody else has locked; return how many. Three round trips."""
    await session.execute(_LOOK_UP)
    unlocked = select(DeadJob.job_id).where(*which.conditions()).with_for_update(of=DeadJob, skip_locked=True)
    ids = (await session.scalars(unlocked)).all()
    await session.execute(delete(DeadJob).where(DeadJob.job_id.in_(ids)))
    return len(ids)


async def count_dead_jobs(session: AsyncSession, which: DeadFilter, *, until: datetime | None = None) -> int:
    """Return how many dead letters there are, or had died ``until`` then. One round trip, which reads all of them."""
    conditions = [*which.conditions(), *([] if until is None else [DeadJob.died_at <= until])]
    return await session.scalar(select(func.count()).select_from(DeadJob).where(*conditions)) or 0


async def count_dead_jobs_up_to(session: AsyncSession, which: DeadFilter, most: int) -> tuple[int, bool]:
    """Return how many of the first ``most`` dead letters that match are to be acted on, and whether there are more.

    One round trip. Letters are limited first: PostgreSQL would rather read all receipts than look up ten thousand.
    """
    chosen = select(DeadJob.job_id, DeadJob.request_hash).where(*which.matches()).limit(most + 1).subquery()
    letter = aliased(DeadJob, chosen)
    both = func.count(), func.count().filter(~_has_taken_effect(letter))
    read, found = (await session.execute(select(*both).select_from(letter))).one()
    return min(found, most), read > most


async def count_by_reason(session: AsyncSession, which: DeadFilter) -> list[tuple[str | None, str, int]]:
    """Return jobs' names and reasons with how many letters have both, most first. One round trip, which reads all."""
    both = DeadJob.job_name, DeadJob.reason
    rows = await session.execute(
        select(*both, func.count()).where(*which.conditions()).group_by(*both).order_by(func.count().desc(), *both)
    )
    return [(job_name, reason, number) for job_name, reason, number in rows]


async def delete_dead_jobs(session: AsyncSession, which: DeadFilter) -> int:
    """Delete dead letters for good; return how many. One round trip."""
    removed = await session.scalars(delete(DeadJob).where(*which.conditions()).returning(DeadJob.job_id))
    return len(removed.all())
