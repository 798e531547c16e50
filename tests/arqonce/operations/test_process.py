"""What one process shows, also when one of its figures cannot be read. No server is needed."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from arqonce.metrics import families, lag
from arqonce.metrics.lag import LoopLag
from arqonce.metrics.store import Store, read_beat
from arqonce.operations.process import Operations
from arqonce.process.shown import show_pool


async def test_an_engine_that_keeps_no_connections_has_no_figures_of_a_pool() -> None:
    """An application's own, behind PgBouncer: metrics and readiness are shown all the same."""
    operations = Operations("worker")
    show_pool(operations, async_sessionmaker(create_async_engine("postgresql+asyncpg://", poolclass=NullPool)))
    operations.started()

    with capture_logs() as logs:
        answers = [await operations.ready(), await operations.metrics()]

    assert ([answer.status for answer in answers], logs) == ([200, 200], [])
    assert families.CONNECTIONS.name.encode() not in answers[1].body


async def test_figures_that_cannot_be_read_are_told_once_and_leave_the_process_well() -> None:
    """A probe that failed for that would end it."""
    operations = Operations("worker")
    operations.add(lambda _store: 1 / 0)  # type: ignore[arg-type] # never returns
    operations.started()

    with capture_logs() as logs:
        statuses = [(await operations.ready()).status for _ in range(2)]

    assert (statuses, [line["log_level"] for line in logs]) == ([200, 200], ["error"])


async def test_a_loop_that_turns_is_seen_to_turn_whatever_else_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor kills a process whose loop it does not see turn."""
    monkeypatch.setattr(lag, "EVERY", timedelta(milliseconds=1))
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    store = Store()
    measured = LoopLag(store)

    with measured.measuring():
        measured.on_turn = lambda: 1 / 0  # type: ignore[assignment] # never returns
        first = read_beat(store.memory)
        async with asyncio.timeout(5):
            while read_beat(store.memory) < first + 0.02:
                await asyncio.sleep(0.001)
