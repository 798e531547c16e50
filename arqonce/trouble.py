"""Logs an outage once: when it begins, when it changes and when it is over, not at each attempt."""

import structlog


class Trouble:
    """What is wrong with a server, as far as it was noted last."""

    def __init__(self, log: structlog.stdlib.BoundLogger, *, over: str) -> None:
        """Nothing is wrong. ``over`` is the event that is logged when it is so again."""
        self._log = log
        self._over = over
        self._known: str | None = None

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
