"""Attempts that failed are on record, and a storm of failures is no burden."""

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from structlog.testing import capture_logs

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.batch import run_batch
from arqonce.execution.delivery import Delivery
from arqonce.execution.verdict import RetryLater
from arqonce.job import RetryAfter
from arqonce.ledger.attempts import FailedAttempt, insert_attempts
from arqonce.ledger.tables import AttemptRecord
from arqonce.payloads import Payload, Result
from arqonce.spec import JobSpec
from arqonce.wire.keys import now_ms
from tests.conftest import wait_until_async
from tests.faults.observe import letters

Sessions = async_sessionmaker[AsyncSession]

SECRET = "jane@example.org"  # noqa: S105 - a person's data


class Work(Payload[Result]):
    """A job that fails."""

    job_name: ClassVar[str] = "work"
    fault: str = "any"


async def _fail(_session: AsyncSession, payload: Work) -> Result:
    if payload.fault == "asked":
        raise RetryAfter(timedelta(seconds=30), reason="the bank is closed")
    if payload.fault == "waits":
        raise RetryAfter(timedelta(seconds=30), counts=False)
    if payload.fault == "outage":
        raise ConnectionResetError(SECRET)
    raise LookupError(SECRET)


async def _fail_together(session: AsyncSession, payloads: Sequence[Work]) -> list[Result]:
    return [await _fail(session, payload) for payload in payloads]


SPEC: JobSpec[Any, Any] = JobSpec(Work, _fail, batch=_fail_together, max_attempts=3)


def _delivery(job_id: str, attempt: int = 1, **fields: str) -> Delivery:
    return Delivery(job_id, attempt, (), fields, queue="low", enqueued_ms=now_ms())


async def _run(dispatcher: Dispatcher, delivery: Delivery) -> None:
    with pytest.raises((RetryLater, LookupError)):
        await dispatcher.run(SPEC, delivery)


async def _records(sessions: Sessions) -> list[AttemptRecord]:
    async with sessions() as session:
        return list(await session.scalars(select(AttemptRecord).order_by(AttemptRecord.id)))


async def _written(sessions: Sessions, number: int) -> list[AttemptRecord]:
    async def are_written() -> bool:
        return len(await _records(sessions)) >= number

    await wait_until_async(are_written, 10)
    return await _records(sessions)


async def test_each_failed_attempt_is_on_record_without_its_text(sessions: Sessions) -> None:
    """When, where, why, and when it runs again; the last one commits with the dead letter."""
    dispatcher = Dispatcher(sessions)
    async with dispatcher.history.writing():
        await _run(dispatcher, _delivery("j1"))
        (first,) = await _written(sessions, 1)
    await _run(dispatcher, _delivery("j1", 3))

    last = (await _records(sessions))[-1]

    assert (first.job_id, first.attempt, first.job_name, first.queue, first.counted) == ("j1", 1, "work", "low", True)
    assert (first.code, first.sqlstate) == ("LookupError", None)
    assert first.error.startswith("LookupError at ")
    assert "test_history.py" in first.error
    assert SECRET not in first.error
    assert first.started_at < first.failed_at < (first.retry_at or first.failed_at)
    assert first.worker.partition(":")[2].isdigit()
    assert (last.attempt, last.retry_at, await letters(sessions)) == (3, None, {"j1": "LookupError"})


async def test_a_wish_is_on_record_if_it_counts_and_waiting_is_not(sessions: Sessions) -> None:
    """A handler that looks every few seconds whether something has come would leave a row each time."""
    dispatcher = Dispatcher(sessions)
    await _run(dispatcher, _delivery("waits", fault="waits"))
    await _run(dispatcher, _delivery("asked", fault="asked"))

    async with dispatcher.history.writing():
        (record,) = await _written(sessions, 1)

    assert (record.job_id, record.error) == ("asked", "RetryAfter: the bank is closed")
    assert (record.retry_at or record.failed_at) - record.failed_at == timedelta(seconds=30)


async def test_what_an_outage_breaks_off_does_not_count(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone or in a batch; what could not even begin is no attempt."""
    dispatcher = Dispatcher(sessions)

    async def explains(_error: BaseException, *, since: float) -> bool:
        return since > 0

    async def is_closed() -> bool:
        return False

    monkeypatch.setattr(dispatcher.gate, "explains", explains)
    await _run(dispatcher, _delivery("alone", fault="outage"))
    await run_batch(dispatcher, SPEC, [_delivery("b1", fault="outage"), _delivery("b2", fault="outage")])
    with monkeypatch.context() as patch:
        patch.setattr(dispatcher.gate, "_trouble", ("gone", "gone"))
        patch.setattr(dispatcher.gate, "check", is_closed)
        await _run(dispatcher, _delivery("late"))

    async with dispatcher.history.writing():
        found = await _written(sessions, 3)

    assert [(one.job_id, one.code, one.counted) for one in found] == [
        (job_id, "ConnectionResetError", False) for job_id in ("alone", "b1", "b2")
    ]


def _attempt(job_id: str) -> FailedAttempt:
    now = time.monotonic()
    return FailedAttempt(job_id, 1, "work", "low", "E", None, "", "here:1", now, now, counted=True, retry_in=None)


async def test_a_storm_is_written_together_and_its_excess_dropped(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 500 a second and 2,000 in memory; the log counts the others. A closed gate only delays."""
    monkeypatch.setattr("arqonce.execution.history._EVERY", timedelta(milliseconds=10))
    statements: list[int] = []

    async def insert(session: AsyncSession, attempts: Sequence[FailedAttempt]) -> None:
        statements.append(len(attempts))
        await insert_attempts(session, attempts)

    monkeypatch.setattr("arqonce.execution.history.insert_attempts", insert)
    dispatcher = Dispatcher(sessions)
    dispatcher.gate._trouble = ("gone", "gone")
    with capture_logs() as logs:
        async with dispatcher.history.writing():
            for number in range(2100):
                dispatcher.history.add(_attempt(str(number)))

            async def is_told() -> bool:
                return bool(logs)

            await wait_until_async(is_told, 10)
            assert statements == []
            dispatcher.gate._trouble = None
            assert len(await _written(sessions, 2000)) == 2000

    assert statements == [500] * 4
    assert [(line["event"], line["count"]) for line in logs] == [("failed attempts are not on record", 100)]


async def test_the_end_writes_all_that_is_left_or_says_how_much_was_not(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is more than one statement has, where a storm of failures ends with its worker."""

    async def fail(*_arguments: object) -> None:
        raise ConnectionResetError

    with capture_logs() as logs:
        for history in (Dispatcher(sessions).history for _ in range(2)):
            async with history.writing():
                for number in range(1200):
                    history.add(_attempt(str(number)))
            monkeypatch.setattr("arqonce.execution.history.insert_attempts", fail)

    assert len(await _records(sessions)) == 1200
    assert [line["count"] for line in logs] == [1200]


async def test_what_cannot_be_recorded_keeps_nothing_from_its_end(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter is written without its attempt; what the database refuses is dropped, and not tried for ever."""
    broken = "arqonce.execution.{}.insert_attempts"

    async def refuse(session: AsyncSession, attempts: Sequence[FailedAttempt]) -> None:
        await insert_attempts(session, [attempt._replace(job_id="\0") for attempt in attempts])

    monkeypatch.setattr(broken.format("dead_letters"), refuse)
    monkeypatch.setattr(broken.format("history"), refuse)
    dispatcher = Dispatcher(sessions)
    with capture_logs() as logs:
        await _run(dispatcher, _delivery("j1", 3))
        await _run(dispatcher, _delivery("j2", 1))
        async with dispatcher.history.writing():
            pass  # the end writes what is left

    assert await letters(sessions) == {"j1": "LookupError"}
    assert await _records(sessions) == []
    assert [line["count"] for line in logs if line["event"] == "failed attempts are not on record"] == [1, 1]
