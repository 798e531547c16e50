"""What PostgreSQL knows of a job, from its three tables."""

from datetime import UTC, datetime

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger.tables import DeadJob, JobReceipt, PromisedJob
from arqonce.ledger.where import JobTrace, trace_by_job_id

_NOW = datetime.now(UTC)
_RECEIPT = insert(JobReceipt).values(job_name="create_user", request_hash=b"1", attempt=1)
_PROMISE = insert(PromisedJob).values(
    job_id="j", job_name="create_user", queue="q", message=b"{}", request_hash=b"1", due_at=_NOW, give_at=_NOW
)
_LETTER = insert(DeadJob).values(
    job_id="j",
    job_name="create_user",
    message=b"{}",
    request_hash=b"1",
    reason="r",
    explanation="e",
    error="",
    attempts=1,
)


async def test_a_job_without_a_trace_is_none(session: AsyncSession) -> None:
    """Nothing is known, which proves nothing."""
    assert await trace_by_job_id(session, "j") is None


async def test_a_receipt_counts_before_a_promise_and_that_before_a_dead_letter(session: AsyncSession) -> None:
    """A dead letter stays until its retry takes effect; a promise until its receipt."""
    await session.execute(_LETTER)
    dead = await trace_by_job_id(session, "j")
    await session.execute(_PROMISE)
    promised = await trace_by_job_id(session, "j")
    await session.execute(_RECEIPT.values(job_id="j", result={"id": 1}))
    ended = await trace_by_job_id(session, "j")

    assert [one and one.status for one in (dead, promised, ended)] == ["failed", "promised", "succeeded"]
    assert dead == JobTrace("create_user", b"1", None, {"type": "r", "message": "e"}, is_dead=True)
    assert promised == JobTrace("create_user", b"1", None, None, is_dead=False)
    assert ended == JobTrace("create_user", b"1", {"id": 1}, None, is_dead=False)


async def test_a_refusal_is_a_failure_and_not_dead(session: AsyncSession) -> None:
    """It was answered, by a handler."""
    failure = {"type": "email_taken", "message": "m"}
    await session.execute(_RECEIPT.values(job_id="j", failure=failure))

    assert await trace_by_job_id(session, "j") == JobTrace("create_user", b"1", None, failure, is_dead=False)
