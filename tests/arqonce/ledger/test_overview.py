"""Figures of the whole ledger: what they read is bounded, whatever state the jobs are in."""

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.doctor import postgres
from arqonce.ledger.figures import overdue
from arqonce.ledger.overview import MOST_QUEUES, estimate, promised_by_queue

_PROMISE = text("""
    INSERT INTO arqonce.outbox
        (job_id, job_name, queue, message, request_hash, due_at, give_at, created_at, dispatches)
    SELECT :queue || :seconds || n, 'x', :queue, '', '', at, at, at, 0
    FROM generate_series(1, :number) AS n, (SELECT now() - make_interval(secs => :seconds) AS at) AS due
""")


async def _promise(session: AsyncSession, queue: str, number: int, *, seconds: int) -> None:
    await session.execute(_PROMISE, {"queue": queue, "number": number, "seconds": seconds})


def _rows(plan: dict[str, Any]) -> Iterator[int]:
    yield plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)
    for part in plan.get("Plans", ()):
        yield from _rows(part)


async def _most_read(session: AsyncSession, statement: str, **parameters: object) -> int:
    told = await session.scalar(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"), parameters)
    return max(_rows((json.loads(told) if isinstance(told, str) else told)[0]["Plan"]))


async def test_what_was_just_promised_is_not_read_to_find_what_is_late(session: AsyncSession) -> None:
    """A million promises of the last seconds cost no more than the bound, and those that are late come first."""
    await _promise(session, "q", 5000, seconds=1)
    await _promise(session, "q", 2, seconds=20)
    await session.execute(text("ANALYZE arqonce.outbox"))
    count = "SELECT " + overdue(queue="'q'", most="5")

    late = await session.scalar(text(count))

    assert (late, await _most_read(session, count)) == (2, 5)


async def test_the_doctor_reads_no_more_than_the_overview(session: AsyncSession) -> None:
    """Of each queue those that are due first, by the index: none is sorted."""
    await _promise(session, "a", 10_100, seconds=1)
    await session.execute(text("ANALYZE arqonce.outbox"))

    read = await _most_read(session, postgres._OUTBOX.text, overdue=timedelta(seconds=15), often=5)

    assert read == 10_000


async def test_queues_share_what_is_counted(session: AsyncSession) -> None:
    """Of two queues each has half of it; a queue with more says so."""
    await _promise(session, "a", 5001, seconds=20)
    await _promise(session, "b", 3, seconds=1)

    found = await promised_by_queue(session)

    assert [tuple(one) for one in found] == [("a", 5000, 5000, True), ("b", 3, 0, False)]


async def test_one_queue_more_than_are_counted_is_found(session: AsyncSession) -> None:
    """So that it is known that there are more."""
    for number in range(MOST_QUEUES + 5):
        await _promise(session, f"q{number}", 1, seconds=1)

    assert len(await promised_by_queue(session)) == MOST_QUEUES + 1


async def test_how_many_there_are_is_estimated(session: AsyncSession) -> None:
    """As far as PostgreSQL has looked at the table: before that nothing is said."""
    before = await estimate(session)
    await _promise(session, "a", 2000, seconds=1)
    await session.execute(text("ANALYZE arqonce.outbox"))

    after = await estimate(session)

    assert before.dead is None or before.dead >= 0
    assert (after.promised, after.dead) == (2000, before.dead)
