"""Runs jobs of two phases: the work without a connection, then the store, which is repeated without the work.

The store is an attempt as any other (``attempt``), with the outcome as one more argument. If it fails in a way that may
pass, the job stays this worker's and the outcome stays in memory: the next attempt begins with the store.
"""

import asyncio
import time
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from arqonce.execution.attempt import Dispatcher
from arqonce.execution.delivery import AnySpec, Delivery
from arqonce.execution.progress import Progress
from arqonce.execution.traces import traced_attempt
from arqonce.execution.verdict import RetryLater

_PATIENCE = timedelta(minutes=5)
"""How long an outcome is kept after the store has failed first. After that the job returns to the queue and works
again: the worker may be the trouble."""


def longest_run(spec: AnySpec) -> timedelta:
    """Return how long a run of the job may take, all its phases and their repetition included."""
    return spec.deadline if spec.phases is None else spec.phases.deadline + _PATIENCE + spec.deadline


def run(
    dispatcher: Dispatcher, spec: AnySpec, delivery: Delivery, progress: Progress | None = None
) -> Coroutine[Any, Any, dict[str, Any]]:
    """Run one attempt of a job, and of one with phases all attempts that need no work any more.

    Takes and raises what ``Dispatcher.run`` takes and raises.
    """
    if spec.phases is None:  # the attempt itself: a coroutine around it would cost each job one call more
        return _attempt(dispatcher, spec, delivery, progress)
    return _run_phases(dispatcher, spec, delivery, progress or Progress())


def _attempt(
    dispatcher: Dispatcher, spec: AnySpec, delivery: Delivery, progress: Progress | None
) -> Coroutine[Any, Any, dict[str, Any]]:
    return traced_attempt(dispatcher.run(spec, delivery, progress), spec, delivery, dispatcher.queue)


async def _run_phases(dispatcher: Dispatcher, spec: AnySpec, delivery: Delivery, progress: Progress) -> dict[str, Any]:
    until: float | None = None
    while True:
        try:
            return await _attempt(dispatcher, spec, delivery, progress)
        except RetryLater as later:
            until = until or time.monotonic() + _PATIENCE.total_seconds()
            left = timedelta(seconds=until - time.monotonic())
            if not progress.has_worked or dispatcher.abandoned.has_current or later.delay >= left:
                raise
            async with dispatcher.aside():
                await asyncio.sleep(later.delay.total_seconds())
                await dispatcher.gate.wait(left - later.delay)
            if later.counts:
                delivery = delivery._replace(attempt=delivery.attempt + 1, was_left=False)
