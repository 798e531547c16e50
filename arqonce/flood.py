"""Logs what may happen very often: at once, and then once a minute with its number."""

import time
from datetime import timedelta

import structlog

LOG_INTERVAL = timedelta(minutes=1)
"""How often it is logged: a flood of connections or requests must not become a flood of lines."""


class Flood:
    """One kind of event that may come in floods."""

    def __init__(self, log: structlog.stdlib.BoundLogger, event: str, *, counted: str) -> None:
        """Nothing has happened. ``counted`` names the number of times since the last line."""
        self._log, self._event, self._counted = log, event, counted
        self.number = 0
        """How often it has happened, ever."""
        self._logged = 0
        self._log_again_at = 0.0

    def note(self, **facts: object) -> None:
        """Count it once more, and log it with ``facts`` unless it was logged within the last minute."""
        self.number += 1
        now = time.monotonic()
        if now < self._log_again_at:
            return
        self._log.warning(self._event, **{self._counted: self.number - self._logged}, **facts)
        self._logged, self._log_again_at = self.number, now + LOG_INTERVAL.total_seconds()


class Refusals(Flood):
    """Connections that were refused because too many are open."""

    def __init__(self, log: structlog.stdlib.BoundLogger) -> None:
        """None was refused."""
        super().__init__(log, "too many connections: new ones are refused", counted="refused")
