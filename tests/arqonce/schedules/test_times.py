"""When slots are: against a brute-force oracle over two years of zones that change their clocks, and day by day."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise, product, takewhile
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from arqonce.schedules.times import Times

ZONES = (
    "America/New_York", "America/Santiago", "America/St_Johns", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut",
    "Asia/Kathmandu", "Australia/Lord_Howe", "Europe/Berlin", "Pacific/Auckland", "Pacific/Chatham", "UTC",
)  # fmt: skip
"""Among them clocks that change at midnight, by half an hour, and four times a year."""

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
END = datetime(2027, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _oracle(zone: ZoneInfo, minutes: set[int], hours: set[int], days: set[int], second: int) -> list[datetime]:
    """Try every local time of every day, and sort: nothing in it follows a clock."""
    slots: set[datetime] = set()
    for number in range((END - BEGIN).days + 6):
        day = date(2024, 12, 30) + timedelta(days=number)
        for hour, minute in product(hours, minutes) if day.isoweekday() % 7 in days else ():
            slots |= _instants(datetime.combine(day, time(hour, minute, second)), zone, len(hours))
    return sorted(slot for slot in slots if BEGIN < slot < END)


def _instants(local: datetime, zone: ZoneInfo, hours: int) -> set[datetime]:
    folds = {local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    shown = {instant for instant in folds if instant.astimezone(zone).replace(tzinfo=None, fold=0) == local}
    if hours == 24:
        return shown
    if shown:
        return {min(shown)}
    later = local.replace(second=0)  # left out: the first minute that the clock shows afterwards
    while not (instants := _instants_of_minute(later, zone)):
        later += MINUTE
    return instants


def _instants_of_minute(local: datetime, zone: ZoneInfo) -> set[datetime]:
    instant = local.replace(tzinfo=zone).astimezone(UTC)
    return {instant} if instant.astimezone(zone).replace(tzinfo=None) == local else set()


def _field(values: set[int], everything: int) -> str:
    return "*" if len(values) == everything else ",".join(map(str, sorted(values)))


HOURS = some.one_of(
    some.sets(some.sampled_from(range(24)), min_size=1, max_size=4),
    some.sets(some.sampled_from(range(4)), min_size=1, max_size=3),
    some.just(set(range(24))),
)
DAYS = some.one_of(some.just(set(range(7))), some.sets(some.integers(0, 6), min_size=1, max_size=2), some.just({0}))


@settings(max_examples=8, deadline=None)  # others in each run
@given(
    zone=some.sampled_from(ZONES),
    minutes=some.sets(some.sampled_from(range(60)), min_size=1, max_size=2),
    hours=HOURS,
    days=DAYS,
    second=some.sampled_from([0, 0, 30]),
    restarts=some.lists(some.datetimes(datetime(2025, 1, 1), datetime(2026, 12, 31)), max_size=5),  # noqa: DTZ001 - hypothesis wants naive ones
)
def test_slots_over_two_years_are_those_of_the_oracle(  # noqa: PLR0913 - the parts of an expression
    *, zone: str, minutes: set[int], hours: set[int], days: set[int], second: int, restarts: list[datetime]
) -> None:
    """None missing, none doubled, in order; and the same ones from wherever one begins to count."""
    fields = f"{_field(minutes, 60)} {_field(hours, 24)} * * {_field(days, 7)}"
    times = Times(cron=f"{second} {fields}" if second else fields, zone=zone)
    expected = _oracle(ZoneInfo(zone), minutes, hours, days, second)

    slots = list(takewhile(lambda slot: slot < END, times.after(BEGIN)))

    assert all(earlier < later for earlier, later in pairwise(slots))
    assert slots == expected
    for moment in (restart.replace(tzinfo=UTC) for restart in restarts):
        assert next(times.after(moment)) == next((slot for slot in expected if slot > moment), next(times.after(END)))


def _local(times: Times, after: datetime, count: int) -> list[str]:
    found: Iterator[datetime] = islice(times.after(after), count)
    return [f"{slot.astimezone(ZoneInfo(times.zone)):%d %H:%M %z}" for slot in found]


SPRING, AUTUMN = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "slots"),
    [
        ("30 2 * * *", SPRING, ["29 03:00 +0200", "30 02:30 +0200"]),
        ("0 30 2 * * *", SPRING, ["29 03:00 +0200", "30 02:30 +0200"]),
        ("*/20 2,3 * * *", SPRING, ["29 03:00 +0200", "29 03:20 +0200", "29 03:40 +0200", "30 02:00 +0200"]),
        ("30 2 * * *", AUTUMN, ["25 02:30 +0200", "26 02:30 +0100"]),
        ("30 0-23 29 3 *", SPRING + timedelta(hours=12), ["29 01:30 +0100", "29 03:30 +0200", "29 04:30 +0200"]),
        ("30 * 25 10 *", AUTUMN + timedelta(hours=11, minutes=45), ["25 02:30 +0200", "25 02:30 +0100"]),
    ],
)
def test_the_rule_of_berlin(cron: str, after: datetime, slots: list[str]) -> None:
    """The examples of the docs."""
    assert _local(Times(cron=cron, zone="Europe/Berlin"), after, len(slots)) == slots


@pytest.mark.parametrize("times", [{"cron": "0 3 1 1 *"}, {"cron": "30 * * * *"}, {"every": timedelta(days=300)}])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu", "America/New_York"])
def test_slots_end_with_the_last_time_of_python(times: dict[str, Any], zone: str) -> None:
    """Whoever pauses a schedule until the year 9999 asks for them; one such pause must not break the list of all."""
    found = list(Times(**times, zone=zone).after(datetime(9999, 12, 31, 20, tzinfo=UTC)))

    assert all(found[0] <= slot for slot in found[1:])
    assert len(found) <= 4


def test_an_interval_counts_from_its_start_or_from_1970() -> None:
    """The same slots for every worker, whenever it starts; first and last bound are as they say."""
    starts = datetime(2026, 1, 1, 0, 0, 7, tzinfo=UTC)
    bounded = Times(every=timedelta(hours=1), starts=starts, ends=starts + timedelta(hours=2))

    assert list(bounded.after(BEGIN)) == [starts, starts + timedelta(hours=1)]
    assert next(Times(every=timedelta(minutes=7)).after(BEGIN)).timestamp() % 420 == 0
    assert next(Times(cron="* * * * * *").after(BEGIN + timedelta(microseconds=1))) == BEGIN + timedelta(seconds=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "give cron, such as"),
        ({"cron": "* * * * *", "every": MINUTE}, "give cron, such as"),
        ({"cron": "0 24 * * *"}, r"'0 24 \* \* \*' cannot be read: bad hour. It has five fields"),
        ({"cron": "@daily"}, "wrong number of fields"),
        ({"cron": 7}, "cron is a text"),
        ({"cron": "0 0 31 2 *"}, "cannot be read: bad day-of-month"),
        ({"cron": "0 0 */20 * 1L", "zone": "UTC"}, "there never is a slot"),
        ({"cron": "* * * * *", "zone": "Europe/Berlim"}, "no time zone 'Europe/Berlim': give a name such as"),
        ({"cron": "* * * * *", "zone": "../UTC"}, "there is no time zone"),
        ({"cron": "* * * * *", "zone": "Europe"}, "there is no time zone"),
        ({"every": timedelta(milliseconds=1500)}, "every is a timedelta of whole seconds"),
        ({"every": 60}, "every is a timedelta"),
        ({"every": timedelta(0)}, "every is a timedelta"),
        ({"every": MINUTE, "starts": datetime(2026, 1, 1)}, "starts is a datetime with a time zone"),  # noqa: DTZ001
        ({"every": MINUTE, "starts": BEGIN, "ends": BEGIN}, "there never is a slot: every 1m"),
    ],
)
def test_what_is_wrong_is_refused_at_once(wrong: dict[str, object], message: str) -> None:
    """With the cure, when it is written down and not at the first slot."""
    with pytest.raises(ValueError, match=message):
        Times(**wrong)  # type: ignore[arg-type] # that is the point
