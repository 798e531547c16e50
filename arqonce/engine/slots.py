"""Decides how many jobs to claim, what waits for a slot, and what steps aside. Knows neither Redis nor what jobs do.

A slot is a run: of one job, or of a batch in one transaction. While two batches run nothing is claimed, for a quarter
of a second at most: what arrives waits in Redis and makes the next one larger, as in a database's group commit. So an
idle worker starts a single job at once, and a loaded one finds its own size. No batch waits for company.

A run that only waits for others steps aside: it frees its slot, and takes one again before what is claimed next. While
no place aside is free, runs that want to step aside keep their slots, and so fewer jobs are claimed.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

_BATCHES = 2
"""How many batches run before claims are held back: while one commits, the next is read and built."""

_ROUNDING = 0.01
"""Tolerance of the sum of weights: floats that are added and subtracted."""

_MOST_AHEAD = 1000
"""Most jobs that are claimed at once, also of a kind that allows larger batches, or behind jobs that were parked."""

_MOST_IN_RUN = 500
"""Most jobs of one run, as a rule (``JobSpec.max_batch``), and of one claim: the next is claimed while these run. What
has no slot would have to be given back."""

_MANY = 64
"""Of so many slots, a claim fills half at most while jobs of a backlog run one by one: those in the other half run
while Redis works on it."""

_GROWTH = 4
"""How many times more jobs the next claim asks for when all of the last one could run together."""

_SLOW = timedelta(milliseconds=250)
"""A batch that takes longer halves the next claim; so long, at most, other jobs wait for batches to end."""


class Run(Protocol):
    """What takes a slot."""

    @property
    def size(self) -> int:
        """How many jobs it has."""
        ...

    @property
    def spread(self) -> float:
        """How many such runs are worth having: from 0, two batches, to 1, one in each slot."""
        ...

    @property
    def can_join(self) -> bool:
        """Whether its jobs may run together with others."""
        ...

    @property
    def most(self) -> int:
        """How many jobs of its kind may run together."""
        ...


RunT = TypeVar("RunT", bound=Run)


class Slots(Generic[RunT]):
    """Counts the runs of one worker that have started, and keeps those that wait for a slot."""

    def __init__(self, most: int, aside: int = 0) -> None:
        """Allow ``most`` runs at once, and ``aside`` beside them."""
        self._most = most
        self._at_once = most
        self._most_aside = aside
        self._aside: set[RunT] = set()
        self._leaving: deque[asyncio.Future[None]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._running = 0
        self._batches = 0.0
        self._weights: dict[RunT, float] = {}
        self._next_weight = 1.0
        self._ahead = 0
        self._most_in_run = _MOST_IN_RUN
        self._held_since: float | None = None
        self.waiting: deque[RunT] = deque()

    @property
    def most(self) -> int:
        """How many runs there may be at once."""
        return self._most

    @property
    def free(self) -> int:
        """How many more runs may start."""
        return self._most - self._running

    @property
    def are_few(self) -> bool:
        """Whether less than a quarter is free."""
        return 0 < self.free * 4 < self._most

    def room(self) -> int:
        """Return how many jobs to claim: one for each free slot, and more if they are likely to run together."""
        if self.waiting or self.free <= 0 or self._is_held():
            return 0
        runs = min(self.free, int((_BATCHES - self._batches) / self._next_weight) + 1)
        return max(min(self.free, self._at_once), min(self._ahead, runs * self._most_in_run))

    def room_beside(self, claimed: int) -> int:
        """Return how many jobs to claim beside those that are about to start: none if few slots would be left."""
        left = self.free - claimed
        if self.waiting or self._at_once == self._most or left * 4 < self._most:
            return 0
        return min(left, self._at_once)

    def _is_held(self) -> bool:
        if self._batches < _BATCHES - _ROUNDING:
            self._held_since = None
            return False
        now = time.monotonic()
        self._held_since = self._held_since or now
        return now - self._held_since < _SLOW.total_seconds()

    def fit(self, runs: Sequence[RunT], *, is_full: bool) -> tuple[Sequence[RunT], Sequence[RunT]]:
        """Split runs of jobs that were claimed together into those that have a slot and those that have none.

        The jobs of the latter are given back to the queue: another worker may have a slot, and this one claims less
        from now on.
        """
        fitting, surplus = runs[: self.free], runs[self.free :]
        is_apart = self._most >= _MANY and is_full and not any(run.can_join for run in runs)
        self._at_once = self._most // 2 if is_apart else self._most
        if surplus:
            self._ahead = 0
        elif is_full and all(run.can_join for run in runs):
            self._most_in_run = min((run.most for run in runs), default=_MOST_IN_RUN)
            self._next_weight = min((self._weight(run.spread) for run in runs), default=1.0)
            most = min(_MOST_AHEAD, max(_MOST_IN_RUN, self._most_in_run))
            self._ahead = min(most, max(sum(run.size for run in runs), self._ahead) * _GROWTH)
        return fitting, surplus

    def parked(self, count: int, *, of: int) -> None:
        """Take note that of jobs that were claimed together so many could not start, whatever slots are free.

        If that is every second one, the next claim asks for more: they stand before others that can start.
        """
        if count * 2 >= of:
            self._ahead = min(_MOST_AHEAD, max(count, self._ahead) * _GROWTH)

    def started(self, run: RunT) -> None:
        """Take a slot."""
        self._running += 1
        if run.size > 1:
            self._weights[run] = self._weight(run.spread)
            self._batches += self._weights[run]

    def _weight(self, spread: float) -> float:
        """Return how much of a batch a run is."""
        return _BATCHES / (_BATCHES + max(0, self._most - _BATCHES) * spread)

    def ended(self, run: RunT, *, seconds: float) -> None:
        """Free the slot, or the place aside."""
        if self._aside and run in self._aside:
            self._leave_aside(run)
        else:
            self._free_slot()
        self._batches -= self._weights.pop(run, 0)
        if run.size > 1 and seconds > _SLOW.total_seconds():
            self._ahead //= 2

    async def wait_for_place(self) -> None:
        """Wait until one more run may step aside."""
        while len(self._aside) >= self._most_aside:
            await _wait(self._leaving, on_late=self.pass_place)

    def pass_place(self) -> None:
        """Let the next run that waits step aside: the one that ``wait_for_place`` has let through does not."""
        _wake(self._leaving)

    def step_aside(self, run: RunT) -> None:
        """Free the run's slot."""
        self._aside.add(run)
        self._free_slot()

    async def step_back(self, run: RunT) -> None:
        """Take a slot again. If the wait for it is cancelled, the run stays aside."""
        if self.free > 0:
            self._running += 1
        else:
            await _wait(self._returning, on_late=self._free_slot)
        if run in self._aside:
            self._leave_aside(run)
        else:
            self._free_slot()  # it has been abandoned meanwhile

    def _leave_aside(self, run: RunT) -> None:
        self._aside.remove(run)
        _wake(self._leaving)

    def _free_slot(self) -> None:
        if not _wake(self._returning):  # which takes it over
            self._running -= 1


def _wake(waiting: deque[asyncio.Future[None]]) -> bool:
    while waiting:
        one = waiting.popleft()
        if not one.done():
            one.set_result(None)
            return True
    return False


async def _wait(waiting: deque[asyncio.Future[None]], *, on_late: Callable[[], object]) -> None:
    """Wait until woken. If the wait is cancelled after that, ``on_late`` gives back what the caller was woken for."""
    turn = asyncio.get_running_loop().create_future()
    waiting.append(turn)
    try:
        await turn
    except asyncio.CancelledError:
        if turn.done() and not turn.cancelled():
            on_late()
        raise
