"""Announces from time to time that this worker serves its queues and what it does, and obeys orders to be quiet."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from redis.asyncio import Redis

from arqonce.connection.clock import CLOCK_OFF
from arqonce.connection.presence import ANNOUNCED_EVERY, SHOWN_EVERY, LiveWorker, announce, show, withdraw

_CURE = "let NTP set it: what is enqueued here for later is due at a wrong time"

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.presence")


class Presence:
    """The chore of one worker. Its methods raise redis-py's errors."""

    def __init__(
        self,
        redis: Redis,
        queues: Sequence[str],
        *,
        doing: Callable[[], Mapping[str, Any]],
        obey: Callable[[bool], bool],
    ) -> None:
        """Announce nothing yet.

        ``doing`` returns what the worker does; ``obey`` hears whether to be quiet, and returns whether that is new.
        """
        self._redis = redis
        self._doing = doing
        self._obey = obey
        self.worker = LiveWorker.here(queues)
        self._announce_at = -math.inf
        self._show_at = -math.inf
        self._offset = 0.0
        self._has_told = False

    async def do(self) -> None:
        """Announce the worker, and say what it does, if that is due."""
        now = time.monotonic()
        if is_announced := now >= self._announce_at:
            self._compare_clocks(await announce(self._redis, self.worker))
            self._announce_at = now + ANNOUNCED_EVERY.total_seconds()
        if now >= self._show_at:
            doing = {**self._doing(), "clock_offset": round(self._offset, 3)}
            shown = await show(self._redis, self.worker, doing)
            self._show_at = now + SHOWN_EVERY.total_seconds()
            if not (shown.was_known or is_announced):
                await announce(self._redis, self.worker)
            if shown.order is not None and self._obey(shown.order):
                self._show_at = now  # say so

    def _compare_clocks(self, offset: float) -> None:
        self._offset, is_off = offset, abs(offset) > CLOCK_OFF.total_seconds()
        if is_off and not self._has_told:
            _log.warning("this machine's clock differs from that of Redis", ahead_seconds=-round(offset, 1), cure=_CURE)
        self._has_told = is_off

    def due_in(self) -> float:
        """Return in how many seconds it is due."""
        return min(self._announce_at, self._show_at) - time.monotonic()

    def hurry(self) -> None:
        """Announce it the next time: Redis may have been emptied."""
        self._announce_at = self._show_at = -math.inf

    async def end(self) -> None:
        """Say that the worker has ended."""
        await withdraw(self._redis, self.worker)
