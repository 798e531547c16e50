"""The nightly report."""

from datetime import UTC, date, datetime

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.testing.run_job import RunJob
from shop.jobs import REGISTRY
from shop.payloads import MakeReport
from shop.tables import DailyReport, Order

NIGHTLY = REGISTRY.schedules["nightly-report"]
LATE = datetime(2026, 3, 28, 22, 30, tzinfo=UTC)
"""Half an hour before midnight in Berlin."""


def test_each_night_at_two_the_day_before_is_summed_up() -> None:
    """In Berlin: in the night in which the clock leaves out two o'clock, at three."""
    slots = NIGHTLY.next_slots(after=LATE, count=2)

    assert [slot.isoformat() for slot in slots] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]
    assert NIGHTLY.payload_for(slots[0]) == MakeReport(day=date(2026, 3, 28))


async def test_a_day_ends_at_midnight_in_berlin(run_job: RunJob, session: AsyncSession) -> None:
    """An hour later it is the next day. A second report of a day replaces the first."""
    for number, hour in enumerate((22, 23)):
        session.add(Order(customer="Jane", item=f"{number}", cents=500, created_at=LATE.replace(hour=hour)))

    for _ in range(2):
        report = await run_job(MakeReport(day=date(2026, 3, 28)))

    assert (report.orders, report.cents) == (1, 500)
    assert (await session.get_one(DailyReport, report.day)).orders == 1
