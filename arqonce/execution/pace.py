"""Decides how many jobs of a kind may share a transaction. Knows no server and no job.

Two limits: how long their handlers take together, and how often one of them has made the others run again.
"""

from collections.abc import Sequence
from datetime import timedelta
from statistics import median_low

from arqonce.execution.delivery import AnySpec

TOGETHER = timedelta(milliseconds=50)
"""How long the handlers of one transaction are to take together: so long the first one waits for its commit."""

_LONGEST = TOGETHER / 2
"""Handlers that take longer on average do not share."""

_WAITING = TOGETHER / 8
"""Of handlers that take longer on average, each slot may run a transaction, if they wait for a server."""

_IDLE, _BUSY = 0.4, 0.25
"""Where the event loop is idle for a larger share of the time, more transactions run at once; where less, fewer.

Turns of transactions that run at once take long because they wait for each other. Without a look at the loop, a slow
machine would take that for waiting for a server, run still more of them, and let ever fewer jobs share one.
"""

_MORE, _FEWER = 0.1, 0.7
"""What is added to the spread then, and by what it is multiplied."""

_SLOW = TOGETHER * 5
"""While attempts in transactions of their own take longer, sharing is not tried again."""

_FIRST = 4
"""How many jobs share the first transaction of a kind."""

_WEIGHT = 0.2
"""Weight of the latest transaction in the mean."""

_PAUSE, _LONGEST_PAUSE = 16, 1024
"""After how many jobs in transactions of their own sharing is tried again: first and longest; it doubles each time."""


class Pace:
    """The number of jobs of one kind that share a transaction, in one worker.

    It doubles with each transaction until one fails, which halves it. After that it grows by one.
    """

    def __init__(self, most: int) -> None:
        """Begin small."""
        self._most = most
        self._trusted = min(_FIRST, most)
        self._has_failed = self._is_over = False
        self._alone = 0
        self._pause = _PAUSE
        self._mean = 0.0
        """Seconds that a turn takes; 0 if that is unknown."""
        self._spread = 0.0

    @property
    def size(self) -> int:
        """How many jobs may share a transaction now; 1 means that each has its own."""
        if self._is_over or self._alone > 0:
            return 1
        if self._mean * self._trusted <= TOGETHER.total_seconds():
            return self._trusted
        return int(TOGETHER.total_seconds() / self._mean)

    @property
    def spread(self) -> float:
        """How many transactions are worth having at once, from 0 to 1: see ``Work.spread``."""
        return min(self._spread, self._mean / _WAITING.total_seconds())

    def shared(self, turns: Sequence[float], *, idle: float) -> None:
        """Note that jobs have shared a transaction, and how many seconds the turn of each took.

        The median counts: a new connection, or a pause of the whole process, makes single turns long. ``idle`` is the
        share of that time in which the event loop had nothing to do.
        """
        if idle > _IDLE:
            self._spread = min(1.0, self._spread + _MORE)
        elif idle < _BUSY:
            self._spread *= _FEWER
        jobs, latest = len(turns), median_low(turns)
        self._mean = latest if self._mean == 0 else self._mean + _WEIGHT * (latest - self._mean)
        if self._mean > _LONGEST.total_seconds():
            self._rest()
            return
        self._pause = _PAUSE
        if jobs >= self._trusted:
            self._trusted = min(self._most, self._trusted + 1 if self._has_failed else self._trusted * 2)

    def failed(self, jobs: int, *, is_slow: bool) -> None:
        """Note that one of so many jobs could not share a transaction, so that all run again."""
        self._has_failed = True
        self._trusted = min(self._most, max(2, jobs // 2))
        if is_slow or jobs <= 2:  # noqa: PLR2004 - fewer share nothing
            self._rest()

    def alone(self, *, seconds: float) -> None:
        """Note that an attempt of a job in a transaction of its own has succeeded, and how long it took."""
        if self._alone > 0 and seconds < _SLOW.total_seconds():
            self._alone -= 1

    def end(self) -> None:
        """Let each job have its own transaction from now on."""
        self._is_over = True

    def _rest(self) -> None:
        self._alone, self._pause = self._pause, min(_LONGEST_PAUSE, self._pause * 2)
        self._trusted, self._mean = min(2, self._most), 0.0


class Paces:
    """The paces of all kinds of a worker."""

    def __init__(self) -> None:
        """Know none yet."""
        self._paces: dict[str, Pace] = {}

    def of(self, spec: AnySpec) -> Pace:
        """Return the pace of the kind."""
        if (pace := self._paces.get(spec.name)) is None:
            pace = self._paces[spec.name] = Pace(spec.max_batch)
        return pace
