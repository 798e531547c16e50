"""Exactly one job for each slot, whoever promises it, whatever was down, and however the clock was set."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from sqlalchemy import text
from structlog.testing import capture_logs

from arqonce.ledger.schedule_control import resume_schedules
from arqonce.ledger.schedules import look
from arqonce.outbox import enqueue_in
from arqonce.schedules import scheduler
from arqonce.schedules.decision import MOST, SkipReason, decide
from tests.arqonce.schedules.scheduling import (
    HOUR,
    MINUTE,
    NOON,
    Clock,
    Count,
    Sessions,
    ends,
    every_minute,
    ids,
    promised,
    row,
    started,
)
from tests.promised import execute


async def test_a_fresh_schedule_waits_for_its_first_slot(sessions: Sessions) -> None:
    """It does not fire at once, also if a slot comes at this very moment; then its job is due at the slot."""
    clock = Clock(NOON)
    scheduler = await started(sessions, clock, every_minute(queue="low"))

    waits = await scheduler.promise_due()
    at_once = await promised(sessions)
    clock.now = NOON + MINUTE
    await scheduler.promise_due()

    async with sessions() as session:
        (job,) = (await session.execute(text("SELECT * FROM arqonce.outbox"))).mappings()
    assert (at_once, waits <= timedelta(seconds=10)) == ([], True)
    assert (job["job_id"], job["queue"], job["due_at"]) == (*ids(NOON + MINUTE, 1), "low", NOON + MINUTE)
    assert b'"slot":"2026-06-01T12:01:00Z"' in job["message"]


async def test_a_worker_at_rest_looks_for_each_slot_and_else_seldom(sessions: Sessions) -> None:
    """Others look every few seconds; a slot is everybody's, whose release the others may not have."""
    clock = Clock(NOON)
    scheduler = await started(sessions, clock, every_minute())
    await scheduler.turn()
    far = scheduler._at_rest
    clock.now = NOON + timedelta(seconds=58)

    await scheduler.turn()

    assert far >= timedelta(seconds=30)
    assert scheduler._at_rest <= timedelta(seconds=2.1)


async def test_schedules_of_another_fleet_wake_no_worker(sessions: Sessions) -> None:
    """Neither the slots that come soon nor those that have come and that nobody there decides on."""
    clock = Clock()
    await started(sessions, clock, every_minute("theirs"), queue="elsewhere")
    ours = await started(sessions, clock, every_minute(every=HOUR))

    waits = []
    for clock.now in (NOON + MINUTE - timedelta(milliseconds=10), NOON + 2 * MINUTE):
        waits.append(await ours.promise_due())
    async with sessions() as session:
        due = [(await look(session, [fleet], None, clock.now)).is_due for fleet in ("arq:queue", "elsewhere")]

    assert min(waits) >= timedelta(seconds=5)
    assert due == [False, True]


async def test_many_workers_promise_each_slot_once(sessions: Sessions) -> None:
    """All at once, over an hour that some of them miss; hundreds of schedules are shared among them."""
    clock = Clock()
    schedules = [every_minute(f"s{number}") for number in range(250)]
    workers = [await started(sessions, clock, *schedules) for _ in range(8)]

    for minutes in (1, 1, 3):
        clock.now += minutes * MINUTE
        await asyncio.gather(*(worker.promise_due() for worker in workers[: minutes + 5]))

    assert sorted(await promised(sessions)) == sorted(
        job_id for schedule in schedules for job_id in ids(NOON + MINUTE, 5, schedule.name)
    )


async def test_an_outage_is_made_up_within_the_window(sessions: Sessions) -> None:
    """The oldest slot first; what is older is skipped, counted and logged. Metrics show both."""
    clock = Clock()
    await started(sessions, clock, every_minute(catch_up=HOUR))

    clock.now = NOON + 3 * HOUR
    late = await started(sessions, clock, every_minute(catch_up=HOUR))
    with capture_logs() as logs:
        await late.promise_due()

    known = await row(sessions)
    assert sorted(late.slots.values()) == [61, 119]
    skips = [{name: log[name] for name in ("log_level", "reason", "count", "last")} for log in logs if "reason" in log]
    assert known is not None
    assert await promised(sessions) == ids(NOON + 2 * HOUR, 61)
    assert (known["skipped"], known["skip_reason"], known["last_slot"]) == (119, "too old", clock.now)
    assert skips == [{"log_level": "warning", "reason": "too old", "count": 119, "last": "2026-06-01T13:59:00+00:00"}]


async def test_a_slot_is_skipped_while_an_earlier_one_is_owed(sessions: Sessions) -> None:
    """And the next one after its end is not; with "queue" none is skipped."""
    clock = Clock()
    scheduler = await started(sessions, clock, every_minute(overlap="skip"), every_minute("all"))
    for _ in range(3):
        clock.now += MINUTE
        await scheduler.promise_due()
    before = await promised(sessions)
    await ends(sessions, *ids(NOON + MINUTE, 1))

    clock.now += MINUTE
    await scheduler.promise_due()

    known = await row(sessions)
    assert known is not None
    assert [job_id for job_id in before if ":tick:" in job_id] == ids(NOON + MINUTE, 1)
    assert (known["skipped"], known["skip_reason"]) == (2, "overlap")
    assert await promised(sessions) == sorted(
        [*ids(NOON + 4 * MINUTE, 1), *ids(NOON + MINUTE, 4, "all")],
        key=lambda job_id: (job_id.partition(":2026")[2], job_id),
    )


@settings(max_examples=60, deadline=None)
@given(
    steps=some.lists(some.integers(-3 * 3600, 6 * 3600), min_size=1, max_size=12),
    overlap=some.sampled_from(["skip", "queue"]),
)
def test_no_slot_is_promised_twice_however_the_clock_is_set(steps: list[int], overlap: Any) -> None:  # noqa: ANN401 - one of two words
    """Slots only grow; with a window that is long enough and "queue" none is missing."""
    schedule = every_minute(every=10 * MINUTE, overlap=overlap, catch_up=timedelta(days=4))
    now, next_slot, latest = NOON, NOON + 10 * MINUTE, NOON
    slots: list[datetime] = []
    for step in steps:
        now += timedelta(seconds=step)
        if next_slot > now:
            continue
        decision = decide(schedule, now=now, next_slot=next_slot, is_owed=False, paused_until=None)
        slots += decision.promised
        assert decision.next_slot is not None
        latest, next_slot = now, decision.next_slot

    expected = [NOON + number * 10 * MINUTE for number in range(1, 1 + (latest - NOON) // (10 * MINUTE))]
    assert slots == sorted(set(slots))
    assert set(slots) <= set(expected)
    assert overlap == "skip" or slots == expected


def test_too_many_slots_are_the_last_ones() -> None:
    """Of a schedule of every second, a day of which is missing, the last of them; all others are skipped."""
    schedule = every_minute(every=timedelta(seconds=1), catch_up=timedelta(days=30))

    decision = decide(schedule, now=NOON + 20 * 24 * HOUR, next_slot=NOON, is_owed=False, paused_until=None)

    assert MOST // 2 <= len(decision.promised) <= MOST
    assert decision.promised[-1] == NOON + 20 * 24 * HOUR
    assert [(skip.reason, skip.count, skip.first) for skip in decision.skips] == [(SkipReason.TOO_OLD, MOST, NOON)]


async def test_another_payload_under_a_slots_id_is_that_slot(sessions: Sessions) -> None:
    """Promised, ended or dead by another version of the code, it is done; that is no conflict."""
    clock = Clock()
    scheduler = await started(sessions, clock, every_minute())
    first, second, third, fourth = ids(NOON + MINUTE, 4)
    async with sessions.begin() as session:
        await enqueue_in(session, Count(), key=first)
    await ends(sessions, second)
    dead = "INSERT INTO arqonce.dead_jobs (job_id, message, reason, explanation, error, attempts)"
    await execute(sessions, f"{dead} VALUES ('{third}', '', 'x', '', '', 1)")

    clock.now += 4 * MINUTE
    await scheduler.promise_due()

    assert sorted(await promised(sessions)) == [first, fourth]


async def test_a_payload_that_cannot_be_made_holds_up_no_other_schedule(sessions: Sessions) -> None:
    """Its slots wait, and are made up by a worker whose code is mended; meanwhile it is told, and not at each look."""
    clock = Clock()

    def fail(_slot: datetime) -> Count:
        raise LookupError("no such day")

    broken = await started(sessions, clock, every_minute(make=fail), every_minute("well"))
    with capture_logs() as logs:
        await broken.try_payloads()
        for _ in range(2):
            clock.now += MINUTE
            await broken.promise_due()
    meanwhile = await promised(sessions)
    await (await started(sessions, clock, every_minute(), every_minute("well"))).promise_due()

    told = [log["event"] for log in logs if log["log_level"] == "error"]
    assert meanwhile == ids(NOON + MINUTE, 2, "well")
    assert sorted(await promised(sessions)) == [*ids(NOON + MINUTE, 2), *ids(NOON + MINUTE, 2, "well")]
    assert told == [
        "the payload of the next slot cannot be made",
        "the payload of a slot cannot be made: it is tried again until catch_up is over",
    ]


async def test_slow_payloads_of_many_slots_take_several_transactions(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one they would exceed its limit, be rolled back and made again for ever, and no schedule went on."""
    monkeypatch.setattr(scheduler, "_LIMIT", timedelta(milliseconds=300))
    monkeypatch.setattr(scheduler, "_MAKING", timedelta(milliseconds=50))
    clock, made = Clock(), list[datetime]()

    def make(slot: datetime) -> Count:
        made.append(slot)
        time.sleep(0.02 if len(made) > 1 else 0.35)
        return Count(slot=slot)

    slow = await started(sessions, clock, every_minute(make=make, catch_up=HOUR), every_minute("well", catch_up=HOUR))
    clock.now += 20 * MINUTE
    await slow.promise_due()

    assert sorted(await promised(sessions)) == [*ids(NOON + MINUTE, 20), *ids(NOON + MINUTE, 20, "well")]
    assert (len(made), slow.slots["tick", "promised"]) == (20, 20)


@pytest.mark.parametrize("resumed", [True, False])
async def test_slots_of_a_pause_are_skipped(sessions: Sessions, resumed: bool) -> None:  # noqa: FBT001 - pytest's parameters
    """Whether somebody ended it or its time was over; also if no worker was there when they came."""
    clock = Clock()
    await started(sessions, clock, every_minute())
    until = NOON + 10 * MINUTE
    await _pause(sessions, until + HOUR if resumed else until)
    if resumed:
        clock.now = until
        await _pause(sessions, until)

    clock.now = until + MINUTE
    await (await started(sessions, clock, every_minute())).promise_due()

    known = await row(sessions)
    assert known is not None
    assert await promised(sessions) == ids(until, 2)
    assert (known["skipped"], known["skip_reason"]) == (9, "paused")


async def test_to_resume_a_schedule_that_was_not_paused_skips_no_slot(sessions: Sessions) -> None:
    """One that came while no worker was there, and is to be caught up with."""
    clock = Clock()
    await started(sessions, clock, every_minute(catch_up=HOUR))
    async with sessions.begin() as session:
        assert await resume_schedules(session, ["tick"]) == {"tick"}

    clock.now = NOON + 2 * MINUTE
    await (await started(sessions, clock, every_minute(catch_up=HOUR))).promise_due()

    assert await promised(sessions) == ids(NOON + MINUTE, 2)


async def _pause(sessions: Sessions, until: datetime) -> None:
    async with sessions.begin() as session:
        await session.execute(text("UPDATE arqonce.schedules SET paused_until = :until"), {"until": until})
