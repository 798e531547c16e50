"""Announces from time to time that this worker serves its queues and what it does, and obeys orders to be quiet."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis

from arqonce.connection.clock import CLOCK_OFF
from arqonce.connection.presence import (
    ANNOUNCED_EVERY,
    SHOWN_EVERY,
    SHOWN_IDLE_EVERY,
    Line,
    LiveWorker,
    announce,
    show,
    withdraw,
)

_CURE = "let NTP set it: what is enqueued here for later is due at a wrong time"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.presence")


class Presence:
    """The chore of one worker. Its methods raise redis-py's errors."""

    def __init__(  # noqa: PLR0913 - what it says, and how
        self,
        redis: Redis,
        line: Line,
        queues: Sequence[str],
        *,
        doing: Callable[[], Mapping[str, Any]],
        obey: Callable[[bool], bool],
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        """Announce nothing yet.

        ``doing`` returns what the worker does; ``obey`` hears whether to be quiet, and returns whether that is new.
        ``is_idle`` says whether the worker has no job, and is notified of orders: whoever reads them on ``line`` calls
        ``look_for_orders`` when they change.
        """
        self._redis = redis
        self._line = line
        self._doing = doing
        self._obey = obey
        self._is_idle = is_idle
        self.worker = LiveWorker.here(queues)
        self._announce_at = -math.inf
        self._shown_at = -math.inf
        self._was_idle = self._knows_order = False
        self._offset = 0.0
        self._has_told = False

    async def do(self) -> None:
        """Announce the worker, and say what it does, if that is due."""
        now = time.monotonic()
        if is_announced := now >= self._announce_at:
            self._compare_clocks(await announce(self._redis, self.worker))
            self._announce_at = now + ANNOUNCED_EVERY.total_seconds()
        if now >= self._show_at():
            was_idle, doing = self._is_idle(), {**self._doing(), "clock_offset": round(self._offset, 3)}
            reads_order = is_announced or not (self._knows_order and was_idle)
            # Not after the answer: an order may come before it.
            self._shown_at, self._was_idle, self._knows_order = now, was_idle, True
            shown = await show(self._line, self.worker, doing, reads_order=reads_order)
            if not (shown.was_known or is_announced):
                await announce(self._redis, self.worker)
            if shown.order is not None and self._obey(shown.order):
                self.look_for_orders()  # and say so

    def _show_at(self) -> float:
        """Return when to say what it does: seldom only while it has been idle since it said so."""
        self._was_idle = self._was_idle and self._is_idle()  # asked each turn: a job may block the loop
        every = SHOWN_IDLE_EVERY if self._was_idle else SHOWN_EVERY
        return self._shown_at + every.total_seconds()

    def look_for_orders(self) -> None:
        """Say what the worker does, and look for orders, the next time."""
        self._shown_at = -math.inf
        self._knows_order = False

    def _compare_clocks(self, offset: float) -> None:
        self._offset, is_off = offset, abs(offset) > CLOCK_OFF.total_seconds()
        if is_off and not self._has_told:
            _log.warning("this machine's clock differs from that of Redis", ahead_seconds=-round(offset, 1), cure=_CURE)
        self._has_told = is_off

    def due_in(self) -> float:
        """Return in how many seconds it is due."""
        return min(self._announce_at, self._show_at()) - time.monotonic()

    def hurry(self) -> None:
        """Announce it the next time: Redis may have been emptied."""
        self._announce_at = -math.inf
        self.look_for_orders()

    async def end(self) -> None:
        """Say that the worker has ended."""
        await withdraw(self._redis, self.worker)
