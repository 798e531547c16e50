"""The trace of a request goes on in its job, whether or not the service has a tracer."""

import pytest
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.wire.message import read_message
from arqonce.wire.trace import NO_TRACE
from tests.arqonce.tracing.recording import TRACE
from tests.web.conftest import StartWeb

JANE = {"name": "Jane"}


@pytest.mark.parametrize("way", ["queue", "outbox"])
async def test_the_headers_of_a_trace_are_in_the_message(
    start_web: StartWeb, redis: Redis, sessions: async_sessionmaker[AsyncSession], way: str
) -> None:
    """Of this request alone; one that is no header of a trace is no reason to refuse a request."""
    service = start_web(WEB_ACCEPT_THROUGH=way)

    answers = [
        await service.post("/users", JANE, Idempotency_Key=key, **headers)
        for key, headers in [("k1", TRACE), ("k2", {}), ("k3", {"traceparent": "00-\u00e9-", "tracestate": "x" * 600})]
    ]

    async with sessions() as session:
        rows = await session.execute(text("SELECT job_id, message FROM arqonce.outbox"))
        promised: dict[str, bytes] = {row.job_id: row.message for row in rows}
    messages = [promised.get(key) or await redis.get(f"arq:job:{key}") or b"" for key in ("k1", "k2", "k3")]
    assert [answer.status for answer in answers] == [202] * 3
    assert [read_message(message).trace for message in messages] == [TRACE, NO_TRACE, NO_TRACE]
