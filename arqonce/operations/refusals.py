"""Counts connections that were refused because too many are open, and logs that. Knows no HTTP."""

import time
from datetime import timedelta

import structlog

LOG_INTERVAL = timedelta(minutes=1)
"""How often refusals are logged: a flood of connections must not become a flood of lines."""


class Refusals:
    """The refused connections of one listener."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        self._log = log
        self.number = 0
        """How many there were, ever."""
        self._logged = 0
        self._log_again_at = 0.0

    def note(self, limit: int) -> None:
        """Count one more, because ``limit`` are open; log at most one line a minute."""
        self.number += 1
        now = time.monotonic()
        if now < self._log_again_at:
            return
        self._log.warning("too many connections: new ones are refused", limit=limit, refused=self.number - self._logged)
        self._logged, self._log_again_at = self.number, now + LOG_INTERVAL.total_seconds()
