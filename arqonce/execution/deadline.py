"""The deadline of a phase of an attempt, and what it means that the phase was cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, TypeVar

from arqonce.execution.abandoned import Abandoned
from arqonce.execution.containment import cancelled_itself
from arqonce.execution.record import AFTER_OUTAGE
from arqonce.execution.verdict import RetryLater
from arqonce.failures import DeadlineExceededError

T = TypeVar("T")


async def within(
    longest: timedelta, phase: Coroutine[Any, Any, T], is_cancelled: Callable[[], bool], abandoned: Abandoned
) -> T:
    """Run a phase for ``longest`` at most.

    Raises:
        DeadlineExceededError: it took longer.
        HandlerCancelledError: it was cancelled, and not by the worker (``is_cancelled``).
        RetryLater: the run was abandoned meanwhile, so that nothing that it has raised or returned counts.
    """
    deadline = asyncio.timeout(longest.total_seconds())
    try:
        async with deadline:
            return await phase
    except TimeoutError as error:
        if deadline.expired():
            message = f"took longer than {longest.total_seconds():g} s on each of its attempts"
            raise DeadlineExceededError(message) from error
        raise
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise cancelled_itself() from error
    finally:
        if abandoned.has_current:
            # Ignore whatever the task raised or returned.
            raise RetryLater(AFTER_OUTAGE, counts=False)
