"""Releases: which definitions of schedules hold, and which schedules no worker has any more. Knows no expression.

A release is the set of definitions that workers of one fleet have. A fleet is the workers of one queue. Each worker
registers its release when it starts, and renews it every two minutes at most.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ARRAY, DateTime, Interval, Text, any_, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.namespace import text_for
from arqonce.ledger.tables import ScheduleRelease, ScheduleState

ABSENT_AFTER = timedelta(minutes=5)
"""A release that no worker has renewed for so long has no workers."""

_TIME = DateTime(timezone=True)

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('arqonce schedules', 0))")


async def lock_registration(session: AsyncSession) -> None:
    """Wait until no other worker registers schedules; block others until the end of the transaction. One round trip."""
    await session.execute(_LOCK)


class Seen(NamedTuple):
    """A release that has registered or renewed itself."""

    now: datetime
    first_seen: datetime


_SEE = text("""
    INSERT INTO arqonce.schedule_releases AS known (fleet, release, first_seen, seen_at)
    VALUES (:fleet, :release, coalesce(:since, :now, now()), coalesce(:now, now()))
    ON CONFLICT (fleet, release) DO UPDATE SET
        seen_at = excluded.seen_at,
        first_seen = CASE WHEN known.seen_at < excluded.seen_at - :absent
            THEN excluded.first_seen ELSE known.first_seen END
    RETURNING seen_at, first_seen
""").bindparams(
    bindparam("fleet", type_=Text),
    bindparam("release", type_=Text),
    bindparam("since", type_=_TIME),
    bindparam("now", type_=_TIME),
    bindparam("absent", type_=Interval, value=ABSENT_AFTER),
)


async def see_release(
    session: AsyncSession, fleet: str, release: str, *, since: datetime | None, now: datetime | None
) -> Seen:
    """Register the release, or renew it. One round trip.

    ``since`` is ``None`` when a worker starts; later it is the ``first_seen`` that this returned. So a release that is
    deployed again after it had no workers is the latest one, and an outage makes none.
    """
    parameters = {"fleet": fleet, "release": release, "since": since, "now": now}
    return Seen(*(await session.execute(text_for(session, _SEE), parameters)).one())


async def absent_releases(session: AsyncSession, fleet: str, now: datetime) -> list[str]:
    """Return the fleet's releases that have no workers. One round trip."""
    is_absent = ScheduleRelease.seen_at < now - ABSENT_AFTER
    return list(await session.scalars(select(ScheduleRelease.release).where(ScheduleRelease.fleet == fleet, is_absent)))


class Owned(NamedTuple):
    """A schedule's row and its release."""

    state: ScheduleState
    owner_since: datetime | None
    """When the release that owns it was first seen; ``None`` if that has no workers."""


async def owned_schedules(session: AsyncSession, names: Sequence[str], now: datetime) -> dict[str, Owned]:
    """Return the rows of the schedules that have one, by name. One round trip."""
    is_owner = (ScheduleRelease.fleet == ScheduleState.fleet) & (ScheduleRelease.release == ScheduleState.release)
    statement = (
        select(ScheduleState, ScheduleRelease.first_seen)
        .outerjoin(ScheduleRelease, is_owner & (ScheduleRelease.seen_at >= now - ABSENT_AFTER))
        .where(ScheduleState.name == any_(bindparam("names", type_=ARRAY(Text))))
    )
    found = await session.execute(statement, {"names": names})
    return {state.name: Owned(state, since) for state, since in found}


async def write_schedules(session: AsyncSession, rows: Sequence[dict[str, object]]) -> None:
    """Insert or replace definitions; ``rows`` have the columns that a release decides. Some milliseconds for 100.

    Whether a schedule is paused, and what it did last, stays.
    """
    statement = insert(ScheduleState)
    replaced = {name: statement.excluded[name] for name in rows[0] if name != "name"}
    statement = statement.on_conflict_do_update(index_elements=[ScheduleState.name], set_=replaced)
    await (await session.connection()).execute(statement, rows)


_REMOVE = text("""
    DELETE FROM arqonce.schedules AS schedule WHERE fleet = :fleet AND release = ANY(:releases)
        AND NOT EXISTS (SELECT FROM arqonce.schedule_releases AS other
            WHERE other.release = schedule.release AND other.seen_at >= :now - :absent)
    RETURNING name
""").bindparams(
    bindparam("fleet", type_=Text),
    bindparam("releases", type_=ARRAY(Text)),
    bindparam("now", type_=_TIME),
    bindparam("absent", type_=Interval, value=ABSENT_AFTER),
)

_FORGET = text("DELETE FROM arqonce.schedule_releases WHERE fleet = :fleet AND release = ANY(:releases)").bindparams(
    bindparam("fleet", type_=Text), bindparam("releases", type_=ARRAY(Text))
)


async def remove_releases(session: AsyncSession, fleet: str, releases: Sequence[str], now: datetime) -> list[str]:
    """Delete the fleet's releases and the schedules that they own; return the names of these. Two round trips.

    A schedule stays if workers of another fleet have its release.
    """
    parameters = {"fleet": fleet, "releases": releases}
    removed = await session.scalars(text_for(session, _REMOVE), parameters | {"now": now})
    names = sorted(removed)
    await session.execute(text_for(session, _FORGET), parameters)
    return names
