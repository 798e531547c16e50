"""Whether the server tells of changes, as it said it would. Some accept ``CLIENT TRACKING`` and track nothing.

Dragonfly does with ``NOLOOP``, and a proxy may swallow what was not asked for. So nobody waits for word alone until
some has come on the same connection; until then all who wait look, together 40 times a second. A result that is found
so, and of which nothing was told, shows that nothing is told: from then on they poll, as where tracking is refused.
"""

import logging
from collections.abc import Iterator
from datetime import timedelta

from jobs.results import LOOK_AGAIN

_SHARE = timedelta(milliseconds=25)
"""How long those who wait for proof let pass between two looks, of all of them together."""

_log = logging.getLogger("jobs.tracking")


class Tracking:
    """What one connection that tracks has shown."""

    _was_said = False
    """Whether this process has said that nothing is told."""

    def __init__(self, *, most_missed: int = 0) -> None:
        """Trust nothing yet. ``most_missed`` results may be found before word of them was read."""
        self._most_missed = most_missed
        self._missed = 0
        self._is_proven = False
        self.is_broken = False

    def prove(self) -> None:
        """Take note that the server has told something."""
        self._is_proven, self._missed = True, 0

    def miss(self) -> bool:
        """Take note of a result that nothing told of since the look before; say whether all must poll from now on."""
        self._missed += 1
        if self.is_broken or self._missed <= self._most_missed:
            return False
        self.is_broken = True
        self._say()
        return True

    def pause(self, polls: Iterator[float], waiting: int) -> float:
        """Return for how many seconds to wait for word before the next look; ``waiting`` is how many wait."""
        if self.is_broken:
            return next(polls)
        if self._is_proven:
            return LOOK_AGAIN.total_seconds()
        return min(LOOK_AGAIN.total_seconds(), max(next(polls), waiting * _SHARE.total_seconds()))

    @classmethod
    def _say(cls) -> None:
        if not cls._was_said:
            cls._was_said = True
            _log.warning(
                "Redis accepts CLIENT TRACKING and tells of no results: looking for them instead. "
                "Connect without the proxy, or use Redis or Valkey itself."
            )
