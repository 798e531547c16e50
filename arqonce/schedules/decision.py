"""Decides what becomes of the slots of a schedule that have come: a pure function of its row and of the time."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice, takewhile

from arqonce.schedules.schedule import Schedule
from arqonce.schedules.times import Times

MOST = 1000
"""Most slots of one schedule that are promised at once."""

_ON_TIME = timedelta(minutes=1)
"""A slot of this age is never too old: relays look every few seconds, and servers fail over."""

_MOMENT = timedelta(microseconds=1)


class SkipReason(StrEnum):
    """Why a slot has no job."""

    PAUSED = "paused"
    TOO_OLD = "too old"
    """Older than ``catch_up``, or there were too many."""
    OVERLAP = "overlap"
    """The job of an earlier slot had not ended."""


@dataclass(frozen=True, kw_only=True)
class Skip:
    """Slots, one after the other, that have no job."""

    reason: SkipReason
    count: int
    """How many; it stops at ``MOST``."""
    first: datetime
    last: datetime


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of all slots up to now."""

    promised: list[datetime]
    skips: list[Skip]
    next_slot: datetime | None
    """The first slot later than now; ``None`` if there are no more."""

    def cut(self, number: int) -> "Decision":
        """Return the decision on so many of the promised slots; the next one is the first of the others."""
        if number >= len(self.promised):
            return self
        return replace(self, promised=self.promised[:number], next_slot=self.promised[number])


def decide(
    schedule: Schedule, *, now: datetime, next_slot: datetime, is_owed: bool, paused_until: datetime | None
) -> Decision:
    """Decide on the slots from ``next_slot`` up to ``now``. ``is_owed``: the last promised job has not ended."""
    times, skips = schedule.times, []
    since = next_slot - _MOMENT
    paused = now if paused_until is None else min(now, paused_until - _MOMENT)
    if paused_until is not None and paused > since:
        skips += _skipped(times, SkipReason.PAUSED, since, paused)
        since = paused
    oldest = now - max(schedule.catch_up, _ON_TIME) - _MOMENT
    slots = _up_to(times, max(since, oldest), now)
    skips += _skipped(times, SkipReason.TOO_OLD, since, slots[0] - _MOMENT if slots else now)
    if schedule.overlap == "skip":
        kept = 0 if is_owed else 1
        skips += _skip_all(SkipReason.OVERLAP, slots[kept:])
        slots = slots[:kept]
    return Decision(promised=slots, skips=skips, next_slot=next(times.after(now), None))


def _up_to(times: Times, since: datetime, now: datetime) -> list[datetime]:
    """Return the slots after ``since``; if there are more than ``MOST``, the last ones of them, at least half as many.

    Counts no more than ``MOST`` at a time: a schedule of every second has 86,400 a day.
    """
    while True:
        found = list(islice(_between(times, since, now), MOST + 1))
        if len(found) <= MOST:
            return found
        since += (now - since) / 2


def _between(times: Times, since: datetime, until: datetime) -> Iterator[datetime]:
    return takewhile(lambda slot: slot <= until, times.after(since))


def _skipped(times: Times, reason: SkipReason, since: datetime, until: datetime) -> list[Skip]:
    return _skip_all(reason, list(islice(_between(times, since, until), MOST)))


def _skip_all(reason: SkipReason, slots: list[datetime]) -> list[Skip]:
    return [Skip(reason=reason, count=len(slots), first=slots[0], last=slots[-1])] if slots else []
