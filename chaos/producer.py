"""Submits the jobs of a run, directly and through the outbox, and notes when each was accepted."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from chaos.plan import Route
from chaos.workload import Fate, Order
from jobs.client import JobClient
from jobs.failures import QueueUnavailableError
from jobs.outbox import enqueue_in

_AGAIN = 0.1
"""Seconds before a submission that failed is tried again, under the same key."""


@dataclass(kw_only=True)
class Producer:
    """A service that submits jobs and does not give up: whatever it has submitted must happen."""

    client: JobClient
    sessions: async_sessionmaker[AsyncSession]
    accepted: dict[str, float] = field(default_factory=dict)
    """When a job was accepted, for the last time if it was submitted several times; by key, monotonic."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Failures of submissions, all of which were tried again."""

    async def submit_all(self, orders: Sequence[Order]) -> None:
        """Submit each order at its time; return when all are accepted."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for order in orders:
                await asyncio.sleep(max(0.0, started + order.at - time.monotonic()))
                for _ in range(order.copies):
                    group.create_task(self._submit(order))

    async def _submit(self, order: Order) -> None:
        while True:
            try:
                await self._send(order)
            except (QueueUnavailableError, SQLAlchemyError, OSError) as error:
                self.troubles[type(error).__name__] += 1
                await asyncio.sleep(_AGAIN)
            else:
                break
        if order.fate is not Fate.NEVER:
            self.accepted[order.key] = time.monotonic()

    async def _send(self, order: Order) -> None:
        if order.route is Route.DIRECT:
            await self.client.enqueue(order.payload, key=order.key)
            return
        async with self.sessions() as session:
            await enqueue_in(session, order.payload, key=order.key)
            await (session.rollback() if order.fate is Fate.NEVER else session.commit())
