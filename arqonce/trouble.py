"""Logs an outage once: when it begins, when it changes and when it is over, not at each attempt."""

import time

import structlog


class AwayTime:
    """Adds up for how long a server was away."""

    def __init__(self) -> None:
        """Begin with a server that is there."""
        self._passed = 0.0
        self._since: float | None = None

    @property
    def is_away(self) -> bool:
        """Whether it was away when that was noted last."""
        return self._since is not None

    @property
    def seconds(self) -> float:
        """For how long it was away until now, all times together."""
        return self._passed + (0.0 if self._since is None else time.monotonic() - self._since)

    def note(self, *, is_away: bool) -> None:
        """Note whether it is away now."""
        if is_away:
            self._since = time.monotonic() if self._since is None else self._since
        else:
            self._passed, self._since = self.seconds, None


class Trouble:
    """What is wrong with a server, as far as it was noted last."""

    def __init__(self, log: structlog.stdlib.BoundLogger, *, over: str) -> None:
        """Nothing is wrong. ``over`` is the event that is logged when it is so again."""
        self._log = log
        self._over = over
        self._known: str | None = None
        self.away = AwayTime()

    @property
    def is_known(self) -> bool:
        """Whether something was wrong when it was noted last."""
        return self._known is not None

    def note(self, trouble: str | None, **facts: object) -> None:
        """Note what is wrong, an event of the log, or ``None`` if nothing is; log it with ``facts`` if it is new."""
        if trouble is not None and trouble != self._known:
            self._log.error(trouble, **facts)
        if trouble is None and self._known is not None:
            self._log.info(self._over)
        self._known = trouble
        self.away.note(is_away=trouble is not None)
