"""Submits the jobs of a run, directly and through the outbox; records which were accepted, and the results it got."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.client.client import JobClient, JobHandle
from arqonce.failures import InvalidResultError, JobFailedError, QueueUnavailableError, ResultMissingError
from arqonce.outbox import enqueue_in
from chaos.plan import Route
from chaos.workload import Fate, Order

_AGAIN = 0.1
"""Seconds before a failed call is repeated with the same key."""

_LAST_CALL = 3.0
"""Seconds that calls that wait for a result may still take after everything has ended."""


class Heard(NamedTuple):
    """What a producer got for a job: a result, or the code of a failure."""

    result: dict[str, Any] | None
    failure: str | None = None


@dataclass(kw_only=True)
class Producer:
    """A service that submits jobs and repeats failed submissions: every job that it has submitted must run.

    It waits for the results of jobs with ``waits``, as long as the run lasts.
    """

    client: JobClient
    sessions: async_sessionmaker[AsyncSession]
    accepted: dict[str, float] = field(default_factory=dict)
    """Begin of the call that submitted a job, of the last one if there were several; by key, monotonic seconds."""
    submitted: dict[str, float] = field(default_factory=dict)
    """Time at which a job was first sent; by key, seconds since 1970."""
    heard: dict[str, list[Heard]] = field(default_factory=lambda: defaultdict(list))
    """Results and failures received, by key."""
    troubles: Counter[str] = field(default_factory=Counter)
    """Failed submissions, all of which were repeated."""
    _waiting: set[asyncio.Task[None]] = field(default_factory=set)

    async def submit_all(self, orders: Sequence[Order]) -> None:
        """Submit each order at its time; return when all are accepted."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for order in orders:
                await asyncio.sleep(max(0.0, started + order.at - time.monotonic()))
                self.submitted[order.key] = time.time()
                for _ in range(order.copies):
                    group.create_task(self._submit(order))

    async def stop_waiting(self) -> None:
        """Cancel the calls that wait for a result, after a short time."""
        if self._waiting:
            _, late = await asyncio.wait(self._waiting, timeout=_LAST_CALL)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _submit(self, order: Order) -> None:
        while True:
            began = time.monotonic()
            try:
                handle = await self._send(order)
            except (QueueUnavailableError, SQLAlchemyError, OSError) as error:
                self.troubles[type(error).__name__] += 1
                await asyncio.sleep(_AGAIN)
            else:
                break
        if order.fate is Fate.NEVER:
            return
        self.accepted[order.key] = max(began, self.accepted.get(order.key, 0.0))
        if order.waits:
            task = asyncio.create_task(self._listen(order.key, handle))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _send(self, order: Order) -> JobHandle[Any]:
        if order.route is Route.DIRECT:
            return await self.client.enqueue(order.payload, key=order.key)
        async with self.sessions() as session:
            promised = await enqueue_in(session, order.payload, key=order.key)
            await (session.rollback() if order.fate is Fate.NEVER else session.commit())
        return self.client.handle(promised)

    async def _listen(self, key: str, handle: JobHandle[Any]) -> None:
        """Wait for the result and record it. A job that Redis has lost has none."""
        while True:
            try:
                result = await handle.result(timeout=None)
            except (QueueUnavailableError, OSError):
                await asyncio.sleep(_AGAIN)
            except ResultMissingError:
                return None
            except JobFailedError as failure:
                return self.heard[key].append(Heard(None, failure.code))
            except InvalidResultError:
                return self.heard[key].append(Heard(None, "invalid_result"))
            else:
                return self.heard[key].append(Heard(result.model_dump(mode="json")))
