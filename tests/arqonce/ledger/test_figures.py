"""Counts of jobs in the ledger."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.ledger import figures


async def test_dead_letters_of_other_queues_are_not_read(session: AsyncSession) -> None:
    """A queue without letters would else be looked for among all of the others', at each scrape of the metrics."""
    await session.execute(text("SET LOCAL enable_seqscan = off"))

    plan = "\n".join(await session.scalars(text(f"EXPLAIN {figures._COUNT.text}"), {"queue": "arq:queue"}))

    assert "on dead_jobs_queue_idx" in plan or "using dead_jobs_queue_idx" in plan
