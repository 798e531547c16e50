"""A handler says when it wants to run again, and whether that counts."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, ClassVar

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.failures import AttemptsExhaustedError
from arqonce.job import RetryAfter
from arqonce.payloads import Payload, Result
from arqonce.phases import Phases
from arqonce.spec import JobSpec, Registry
from arqonce.testing.run_job import RunJob
from arqonce.wire.keys import now_ms
from arqonce.work import Again
from tests.faults.observe import letters

Sessions = async_sessionmaker[AsyncSession]
HALF_A_MINUTE = timedelta(seconds=30)


class Done(Result):
    """Nothing."""


class Ask(Payload[Done]):
    """A job that is asked to come later."""

    job_name: ClassVar[str] = "ask"


class _Bank:
    """Refuses so many times."""

    def __init__(self, refusals: int, **options: Any) -> None:  # noqa: ANN401 - handed on
        self.refusals = refusals
        self.options: dict[str, Any] = {"delay": HALF_A_MINUTE, "reason": "the bank is busy"} | options

    async def handle(self, _session: AsyncSession, _payload: Ask) -> Done:
        return await self.work(_payload)

    async def work(self, _payload: Ask) -> Done:
        self.refusals -= 1
        if self.refusals >= 0:
            raise RetryAfter(**self.options)
        return Done()

    async def store(self, _session: AsyncSession, _payload: Ask, outcome: Done) -> Done:
        return outcome

    async def handle_many(self, _session: AsyncSession, _payloads: Sequence[Ask]) -> list[Done]:
        raise RetryAfter(HALF_A_MINUTE)


def _delivery(attempt: int = 1, *, age: timedelta = timedelta(0)) -> Delivery:
    return Delivery("j1", attempt, (), {}, enqueued_ms=now_ms() - round(age.total_seconds() * 1000))


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("phase", ["handler", "work"])
async def test_the_delay_is_the_handlers_own(phase: str, counts: bool, sessions: Sessions) -> None:  # noqa: FBT001 - a case
    """One line says so, and why."""
    bank = _Bank(1, counts=counts)
    spec = JobSpec(Ask, bank.handle if phase == "handler" else Phases(work=bank.work, store=bank.store))

    with capture_logs() as logs, pytest.raises(RetryLater) as caught:
        await Dispatcher(sessions).run(spec, _delivery())

    assert (caught.value.delay, caught.value.counts) == (HALF_A_MINUTE, counts)
    [line] = logs
    told = (line["event"], line["log_level"], line["delay_ms"], line["counts"], line["reason"], "exc_info" in line)
    assert told == ("job retried as it asked", "info", 30_000, counts, "the bank is busy", False)


@pytest.mark.parametrize(
    ("options", "age", "reason"),
    [
        ({}, timedelta(0), r"^attempts_exhausted: the bank is busy, and none is left$"),
        ({"reason": ""}, timedelta(0), "the handler asked for another attempt, and none is left"),
        ({"counts": False}, timedelta(days=8), "the bank is busy, and none is left; the job is 8 days old, so this"),
    ],
)
async def test_a_job_without_attempts_is_dead_with_the_reason(
    options: dict[str, Any], age: timedelta, reason: str, sessions: Sessions
) -> None:
    """An uncounted wish counts when the job is old: none goes on for ever."""
    dispatcher, spec = Dispatcher(sessions), JobSpec(Ask, _Bank(9, **options).handle, max_attempts=2)

    with pytest.raises(RetryLater) as caught:
        await dispatcher.run(spec, _delivery(1, age=age))
    with pytest.raises(AttemptsExhaustedError, match=reason):
        await dispatcher.run(spec, _delivery(2, age=age))

    assert caught.value.counts
    assert await letters(sessions) == {"j1": "attempts_exhausted"}


async def test_uncounted_wishes_of_a_young_job_never_kill_it(sessions: Sessions) -> None:
    """Nor do they make it spin."""
    spec = JobSpec(Ask, _Bank(9, counts=False, delay=timedelta(0)).handle, max_attempts=1)

    with pytest.raises(RetryLater) as caught:
        await Dispatcher(sessions).run(spec, _delivery(1, age=timedelta(days=6)))

    assert (caught.value.delay, caught.value.counts) == (timedelta(seconds=1), False)


async def test_a_batch_that_wishes_so_runs_apart(sessions: Sessions) -> None:
    """Then each job has its own wish."""
    bank = _Bank(0)
    spec = JobSpec(Ask, bank.handle, batch=bank.handle_many)
    jobs = [Delivery(f"j{number}", 1, (), {}) for number in range(2)]

    assert await run_batch(Dispatcher(sessions), spec, jobs) == [Again.APART, Again.APART]


@pytest.mark.parametrize(
    ("delay", "error", "problem"),
    [
        (30, TypeError, r"takes a timedelta, such as timedelta\(seconds=30\); this is 30"),
        (timedelta(seconds=-1), ValueError, "a delay from 0 to 1 day"),
        (timedelta(days=2), ValueError, "a delay from 0 to 1 day; this is 2 days, 0:00:00"),
    ],
)
def test_what_is_no_delay_is_refused(delay: Any, error: type[Exception], problem: str) -> None:  # noqa: ANN401 - mistakes
    """Where it is made."""
    with pytest.raises(error, match=problem):
        RetryAfter(delay)


@pytest.mark.parametrize(
    ("header", "delay"),
    [
        ("120", timedelta(minutes=2)),
        (" 0 ", timedelta(0)),
        ("999999999999", timedelta(days=1)),
        ("9" * 5000, HALF_A_MINUTE),
        ("Wed, 21 Oct 99999999999 07:28:00 GMT", HALF_A_MINUTE),
        ("Wed, 21 Oct 2015 07:28:00 GMT", timedelta(0)),
        ("Fri, 31 Dec 9999 23:59:59 GMT", timedelta(days=1)),
        ("Wed, 21 Oct 2015 07:28:00", timedelta(0)),
        ("Wed, 99 Oct 2015 07:28:00 GMT", HALF_A_MINUTE),
        ("-5", HALF_A_MINUTE),
        ("soon", HALF_A_MINUTE),
        ("", HALF_A_MINUTE),
        (None, HALF_A_MINUTE),
    ],
)
def test_what_a_service_asks_for_is_a_delay_whatever_it_sends(header: str | None, delay: timedelta) -> None:
    """Seconds or a date, bounded; an error here would use up the attempts within seconds."""
    asked = RetryAfter.from_header(header, counts=False, reason="busy")

    assert (asked.delay, asked.counts, asked.reason) == (delay, False, "busy")


def test_a_date_to_come_is_waited_for() -> None:
    """By this machine's clock."""
    asked = RetryAfter.from_header(format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True))

    assert timedelta(minutes=30) < asked.delay <= timedelta(hours=1)


async def test_run_job_does_not_wait(run_job: RunJob) -> None:
    """It tells how long a worker would, and ends if the wish never does."""
    three = Registry(JobSpec(Ask, _Bank(3, counts=False).handle, max_attempts=1))
    endless = Registry(JobSpec(Ask, _Bank(1000, counts=False).handle))

    outcome = await run_job.outcome(Ask(), registry=three)
    with pytest.raises(RuntimeError, match="the job has asked for another attempt 100 times"):
        await run_job(Ask(), registry=endless)

    assert outcome.get() == Done()
    assert [(attempt.number, attempt.delay) for attempt in outcome.attempts] == [(1, HALF_A_MINUTE)] * 3 + [(1, None)]
