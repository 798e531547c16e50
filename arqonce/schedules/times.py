"""Computes the slots of a schedule: from a cron expression in a time zone, or at a fixed interval. Reads no clock.

A slot is an instant, and every function here takes and returns instants in UTC. How they follow the local clock at a
change of its offset, such as the begin and the end of daylight saving time, is the rule of ``Times``. The library
cronsim only matches expressions with local times that have no zone.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The first slot of an interval without ``starts``; so an interval that divides a day begins at midnight UTC."""

_SHORTEST = timedelta(seconds=1)
"""Shortest interval, and the precision of all slots."""

_ALL_HOURS = frozenset(range(24))

_SOME_TIME = datetime(2000, 1, 1)  # noqa: DTZ001 - in no zone, as cronsim is used here

_REMEMBERED = 1000
"""Of so many expressions it is remembered what they say."""

_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, kw_only=True)
class Times:
    """The slots of a schedule: those of a ``cron`` expression in ``zone``, or one in each ``every``.

    An expression that leaves out any hour (``0 2 * * *``, ``*/15 8-17 * * 1-5``) follows the local clock: each of its
    local times is one slot a day. A local time that comes twice, because the clock is set back, is a slot when it comes
    first. Local times that the clock leaves out, because it is set forward, are one slot together, at the change.

    An expression that names every hour (``*/5 * * * *``, ``30 * * * *``) follows elapsed time: every instant whose
    local time matches is a slot, so an hour that comes twice has its slots twice, and one that is left out has none.

    An interval is elapsed time, counted from ``starts``, or from the beginning of 1970 in UTC.
    """

    cron: str | None = None
    every: timedelta | None = None
    zone: str = "UTC"

    starts: datetime | None = None
    """No slot is earlier."""

    ends: datetime | None = None
    """All slots are earlier."""

    def __post_init__(self) -> None:
        """Validate now, not at the first slot.

        Raises:
            ValueError: a value is invalid, or there never is a slot; the text names the cure.
        """
        if (self.cron is None) == (self.every is None):
            raise ValueError('give cron, such as cron="0 2 * * *", or every, such as every=timedelta(minutes=5)')
        _zone(self.zone)
        for name in ("starts", "ends"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, datetime) and value.tzinfo is not None):
                raise ValueError(f"{name} is a datetime with a time zone, such as datetime(2026, 1, 1, tzinfo=UTC)")
        if self.every is not None:
            _require_interval(self.every)
        else:
            _fields(self.cron)
        if self.starts is not None and self.starts.microsecond:
            raise ValueError("starts is a whole second")
        if next(self.after(self.starts - _SECOND if self.starts else _EPOCH), None) is None:
            raise ValueError(f"there never is a slot: {self}")

    def __str__(self) -> str:
        """Describe the times as a person would."""
        return f"every {_brief(self.every)}" if self.every is not None else f"{self.cron} in {self.zone}"

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yield the slots later than ``moment``, in order, until the year 9999. Each costs some 10 µs."""
        moment = moment.astimezone(UTC)
        if self.starts is not None:
            moment = max(moment, self.starts.astimezone(UTC) - _SECOND)
        with suppress(OverflowError):  # Python has no later time
            for slot in self._unbounded(moment):
                if self.ends is not None and slot >= self.ends:
                    return
                yield slot

    def _unbounded(self, moment: datetime) -> Iterator[datetime]:
        if self.every is not None:
            return _at_interval(self.every, moment, (self.starts or _EPOCH).astimezone(UTC))
        fields, zone = _fields(self.cron), _zone(self.zone)
        return (_by_elapsed_time if _has_all_hours(fields) else _by_local_clock)(fields, zone, moment)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, KeyError):  # what it raises for a folder, a bad name, an unknown zone
        raise ValueError(
            f"there is no time zone {name!r:.60}: give a name such as Europe/Berlin "
            "(if it is right, the machine has no time zones: pip install tzdata)"
        ) from None


@lru_cache(maxsize=_REMEMBERED)
def _has_all_hours(fields: str) -> bool:
    return CronSim(fields, _SOME_TIME).hours >= _ALL_HOURS


@lru_cache(maxsize=_REMEMBERED)
def _fields(expression: object) -> str:
    """Return the expression with six fields: cronsim treats those of five in its own way at changes of the clock."""
    if not isinstance(expression, str):
        raise ValueError(f"cron is a text, such as '0 2 * * *'; this is {type(expression).__name__}")  # noqa: TRY004 - as for all others
    fields = expression.split()
    six = " ".join(fields if len(fields) == 6 else ["0", *fields])  # noqa: PLR2004 - with seconds
    try:
        CronSim(six, _SOME_TIME)
    except CronSimError as error:
        raise ValueError(
            f"the cron expression {expression!r:.60} cannot be read: {str(error).lower()}. It has five fields, minute, "
            "hour, day of month, month and day of week, or six, with seconds before them"
        ) from None
    return six


def _require_interval(every: object) -> None:
    if not isinstance(every, timedelta) or every < _SHORTEST or every.microseconds:
        raise ValueError("every is a timedelta of whole seconds, such as timedelta(minutes=5)")


def _at_interval(every: timedelta, moment: datetime, first: datetime) -> Iterator[datetime]:
    slot = first + every * max(0, (moment - first) // every + 1)
    while True:
        yield slot
        slot += every


def _by_local_clock(fields: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    last = moment
    for local in CronSim(fields, _local(moment, zone)):
        slot = _first_instant(local, zone)
        if slot > last:
            yield slot
            last = slot


def _by_elapsed_time(fields: str, zone: ZoneInfo, moment: datetime) -> Iterator[datetime]:
    """Match local times as long as the clock runs evenly; begin again at each change of its offset."""
    at, local_start = moment, _local(moment, zone)
    while True:
        offset = at.astimezone(zone).utcoffset()
        assert offset is not None  # noqa: S101 - the zone gives one
        change = None
        for local in CronSim(fields, local_start):
            slot = local.replace(tzinfo=UTC) - offset
            if (change := _first_change(zone, at, slot)) is not None:
                break
            yield slot
            at = slot
        if change is None:
            return
        at, local_start = change, _local(change, zone) - _SECOND  # so that the change itself may be a slot


def _local(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _first_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when the clock first shows the local time or, if it never does, the next later one."""
    instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _local(instant, zone) == local:
        return instant
    return _first_change(zone, local.replace(tzinfo=zone, fold=1).astimezone(UTC), instant) or instant


def _first_change(zone: ZoneInfo, since: datetime, until: datetime) -> datetime | None:
    """Return the first instant after ``since``, at most ``until``, at which the zone's offset is another."""

    def offset(moment: datetime) -> timedelta | None:
        return moment.astimezone(zone).utcoffset()

    since = since.replace(microsecond=0)  # clocks change at whole seconds
    before = offset(since)
    later = since
    while offset(later) == before:
        if later >= until:
            return None
        since, later = later, min(later + _DAY, until)
    while later - since > _SECOND:
        middle = since + (later - since) // _SECOND // 2 * _SECOND
        since, later = (middle, later) if offset(middle) == before else (since, middle)
    return later


def _brief(duration: timedelta | None) -> str:
    seconds = 0 if duration is None else round(duration.total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % length == 0:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
