"""Deploys: changed and removed schedules, old and new workers side by side, and fleets that were stopped."""

from datetime import timedelta

from sqlalchemy import text
from structlog.testing import capture_logs

from arqonce.ledger.schedule_releases import ABSENT_AFTER
from arqonce.schedules.registration import REMOVED_AFTER
from arqonce.schedules.scheduler import Scheduler
from tests.arqonce.schedules.scheduling import (
    HOUR,
    MINUTE,
    NOON,
    Clock,
    Sessions,
    every_minute,
    ids,
    promised,
    row,
    started,
)
from tests.promised import execute


async def _live(clock: Clock, time: timedelta, *schedulers: Scheduler) -> None:
    """Let time go by for workers that renew their registration as they do."""
    until = clock.now + time
    while clock.now < until:
        clock.now += 2 * MINUTE
        for scheduler in schedulers:
            await scheduler.renew()


async def test_a_change_of_times_begins_anew_and_any_other_does_not(sessions: Sessions) -> None:
    """A slot that was missed stays missed with other times, and is made up with the same."""
    clock = Clock()
    await started(sessions, clock, every_minute(), every_minute("other"))
    clock.now += 3 * MINUTE + timedelta(seconds=1)

    with capture_logs() as logs:
        changed = await started(sessions, clock, every_minute(every=2 * MINUTE), every_minute("other", queue="low"))
    await changed.promise_due()
    clock.now += MINUTE
    await changed.promise_due()

    assert sorted(await promised(sessions)) == sorted([*ids(NOON + 4 * MINUTE, 1), *ids(NOON + MINUTE, 4, "other")])
    assert [log["names"] for log in logs if log["event"] == "schedules changed"] == [["tick", "other"]]


async def test_the_later_release_holds_during_a_deploy(sessions: Sessions) -> None:
    """Old workers leave to it what it has changed, go on with the rest, and take nothing back when they restart."""
    clock = Clock()
    old_schedules = every_minute(), every_minute("same")
    new_schedules = every_minute(every=5 * MINUTE), every_minute("same")
    old = await started(sessions, clock, *old_schedules)
    clock.now += timedelta(seconds=1)
    new = await started(sessions, clock, *new_schedules)
    clock.now += timedelta(seconds=1)
    with capture_logs() as logs:
        restarted = await started(sessions, clock, *old_schedules)
    await old.renew()

    clock.now = NOON + 5 * MINUTE
    for worker in (old, restarted):
        await worker.promise_due()
    without_new = await promised(sessions)
    await new.promise_due()

    assert without_new == ids(NOON + MINUTE, 5, "same")
    assert [job_id for job_id in await promised(sessions) if ":tick:" in job_id] == ids(NOON + 5 * MINUTE, 1)
    assert [log["names"] for log in logs if log["log_level"] == "warning"] == [["tick"]]


async def test_a_release_that_is_rolled_back_holds_no_longer(sessions: Sessions) -> None:
    """Old workers take over when the later release has no workers; workers that were only silent are no new release."""
    clock, silence = Clock(), ABSENT_AFTER + 4 * MINUTE
    old_schedule, new_schedule = every_minute(), every_minute(every=HOUR)
    old = await started(sessions, clock, old_schedule)
    clock.now += timedelta(seconds=1)
    new = await started(sessions, clock, new_schedule)
    holding = []
    for silent, other in ((old, new), (new, old)):
        await _live(clock, silence, other)
        holding.append(await _every(sessions))
        await silent.renew()
        holding.append(await _every(sessions))

    await started(sessions, clock, old_schedule)  # one more of the old workers
    holding.append(await _every(sessions))
    clock.now += silence
    await started(sessions, clock, old_schedule)  # none was left: it is deployed again
    holding.append(await _every(sessions))

    assert holding == [HOUR, HOUR, MINUTE, HOUR, HOUR, MINUTE]


async def _every(sessions: Sessions) -> timedelta | None:
    known = await row(sessions)
    return None if known is None else known["every"]


async def test_a_removed_schedule_goes_when_no_worker_has_it(sessions: Sessions) -> None:
    """Not during the deploy, while old workers promise it; then row, release and all are gone, and it begins anew."""
    clock = Clock()
    old = await started(sessions, clock, every_minute(), every_minute("kept"))
    await execute(sessions, "UPDATE arqonce.schedules SET paused_why = 'a reason'")
    clock.now += timedelta(seconds=1)
    new = await started(sessions, clock, every_minute("kept"))

    await _live(clock, HOUR, old, new)
    during = await row(sessions)
    with capture_logs() as logs:
        await _live(clock, ABSENT_AFTER + REMOVED_AFTER + 4 * MINUTE, new)

    kept = await row(sessions, "kept")
    async with sessions() as session:
        releases = await session.scalar(text("SELECT count(*) FROM arqonce.schedule_releases"))
    assert during is not None
    assert (await row(sessions), releases) == (None, 1)
    assert kept is not None
    assert kept["paused_why"] == "a reason"
    assert [log["names"] for log in logs if "removed" in log["event"]] == [["tick"]]


async def test_the_last_schedule_is_removed_by_workers_that_have_none(sessions: Sessions) -> None:
    """A registry of jobs alone removes what an earlier release had."""
    clock = Clock()
    await started(sessions, clock, every_minute())

    await _live(clock, ABSENT_AFTER + REMOVED_AFTER + 4 * MINUTE, await started(sessions, clock))

    assert await row(sessions) is None


async def test_what_was_only_stopped_is_not_removed(sessions: Sessions) -> None:
    """A fleet that stood still for days, an outage of the database, another fleet's workers, and relays."""
    clock = Clock()
    schedule = every_minute(catch_up=HOUR)
    await started(sessions, clock, schedule)
    other = await started(sessions, clock, every_minute("other"), queue="other")
    relay = await started(sessions, clock, every_minute("other"), removes=False)
    await _live(clock, HOUR, other, relay)
    watching = await started(sessions, clock, every_minute("third"))
    await _live(clock, REMOVED_AFTER - 2 * MINUTE, watching)
    watching._registration.forget()  # its next renewal fails: whoever is silent may be unable to speak
    await _live(clock, REMOVED_AFTER - 2 * MINUTE, watching)

    await (await started(sessions, clock, schedule)).promise_due()

    assert await promised(sessions) != []
    assert (await promised(sessions))[0] == ids(clock.now - HOUR, 1)[0]


async def test_one_registry_for_two_fleets_is_one_schedule(sessions: Sessions) -> None:
    """Each slot has one job, in the queue of whoever promises it; it lives as long as one of them has it."""
    clock = Clock()
    high = await started(sessions, clock, every_minute(), queue="high")
    clock.now += timedelta(seconds=1)
    low = await started(sessions, clock, every_minute(), queue="low")
    for worker in (high, low):
        clock.now += MINUTE
        await high.renew()  # learns within two minutes whose the schedule is now
        await worker.promise_due()
        await high.promise_due()
    await _live(clock, HOUR, high, await started(sessions, clock, every_minute("new"), queue="low"))

    async with sessions() as session:
        queues = list(await session.scalars(text("SELECT queue FROM arqonce.outbox ORDER BY due_at")))
    assert queues == ["high", "low"]
    assert await row(sessions) is not None
