"""Makes the rows of schedules what the latest release says, and removes those that no worker has any more.

Old and new workers run side by side during a deploy. The definition of the release whose first worker started last
holds. Workers of an older release promise the slots of what is unchanged, and leave the rest alone.
"""

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.schedule_releases import (
    ABSENT_AFTER,
    Owned,
    Seen,
    absent_releases,
    lock_registration,
    owned_schedules,
    remove_releases,
    see_release,
    write_schedules,
)
from arqonce.payloads import Payload
from arqonce.schedules.schedule import Schedule

REMOVED_AFTER = timedelta(minutes=10)
"""For how long a worker must have seen that a release has no workers before it removes the release's schedules."""

_TOLD = 10
"""Most names in a line of the log."""

_BREATH = 200
"""Schedules whose slots are computed in one go; some 10 ms."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.schedules.registration")


class Registration:
    """The release of one worker.

    ``removes`` is for workers: they have all schedules of their fleet. A relay may have fewer.
    """

    def __init__(self, schedules: Mapping[str, Schedule], *, fleet: str, removes: bool) -> None:
        """Write nothing yet."""
        self._schedules = schedules
        self._fleet = fleet
        self._removes = removes
        self._release = _release_of(schedules)
        self._since: datetime | None = None
        self._renewed_at: datetime | None = None
        self._absent_since: dict[str, datetime] = {}

    async def renew(self, session: AsyncSession, now: datetime | None) -> None:
        """Register the release, or renew it; take over and remove schedules as it is due.

        Three round trips; with schedules some more at a start and in the quarter of an hour after a deploy.
        """
        await lock_registration(session)
        seen = await see_release(session, self._fleet, self._release, since=self._since, now=now)
        absent = await absent_releases(session, self._fleet, seen.now)
        if absent or self._renewed_at is None or seen.now - self._renewed_at > ABSENT_AFTER:
            await self._take_over(session, seen)
        if self._removes:
            await self._remove(session, absent, seen.now)
        self._since, self._renewed_at = seen.first_seen, seen.now

    def forget(self) -> None:
        """Note that a renewal has failed: for how long other releases have had no workers is no longer known."""
        self._absent_since.clear()

    async def _remove(self, session: AsyncSession, absent: list[str], now: datetime) -> None:
        self._absent_since = {release: self._absent_since.get(release, now) for release in absent}
        over = [release for release, since in self._absent_since.items() if now - since >= REMOVED_AFTER]
        if over and (names := await remove_releases(session, self._fleet, over, now)):
            _log.info("schedules removed: no worker has them any more", count=len(names), names=names[:_TOLD])

    async def _take_over(self, session: AsyncSession, seen: Seen) -> None:
        if not self._schedules:
            return
        known = await owned_schedules(session, list(self._schedules), seen.now)
        rows, changed, others = [], [], []
        for number, (name, schedule) in enumerate(self._schedules.items()):
            owned = known.get(name)
            if owned is None or self._is_ours_now(owned, seen):
                rows.append(self._row(schedule, owned, seen.now))
                changed += [name] if owned is not None and owned.state.definition != schedule.definition else []
            elif owned.state.definition != schedule.definition:
                others.append(name)
            if number % _BREATH == 0:
                await asyncio.sleep(0)
        if rows:
            await write_schedules(session, rows)
        if new := [name for name in self._schedules if name not in known]:
            _log.info("schedules begin", count=len(new), names=new[:_TOLD])
        if changed:
            _log.info("schedules changed", count=len(changed), names=changed[:_TOLD])
        if others and self._since is None:
            _log.warning(
                "these schedules are left to workers of a later release, which defines them otherwise",
                count=len(others),
                names=others[:_TOLD],
            )

    def _is_ours_now(self, owned: Owned, seen: Seen) -> bool:
        if (owned.state.fleet, owned.state.release) == (self._fleet, self._release):
            return False
        if owned.owner_since is None:
            return True
        return (owned.owner_since, owned.state.release) < (seen.first_seen, self._release)

    def _row(self, schedule: Schedule, owned: Owned | None, now: datetime) -> dict[str, object]:
        times = schedule.times
        row: dict[str, object] = {
            "cron": times.cron,
            "every": times.every,
            "zone": times.zone,
            "starts": times.starts,
            "ends": times.ends,
        }
        are_same = owned is not None and all(getattr(owned.state, name) == value for name, value in row.items())
        return row | {
            "name": schedule.name,
            "definition": schedule.definition,
            "fleet": self._fleet,
            "release": self._release,
            "job_name": schedule.payload.job_name if isinstance(schedule.payload, Payload) else None,
            "queue": schedule.queue,
            "overlap": schedule.overlap,
            "catch_up": schedule.catch_up,
            "next_slot": owned.state.next_slot if owned is not None and are_same else next(times.after(now), None),
            "updated_at": now,
        }


def _release_of(schedules: Mapping[str, Schedule]) -> str:
    definitions = sorted(schedule.definition for schedule in schedules.values())
    return hashlib.sha256(repr(definitions).encode()).hexdigest()[:16]
