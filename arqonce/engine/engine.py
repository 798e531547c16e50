"""The engine: claims jobs while there is room for them, keeps them its own while they run, and outlives outages.

It knows Redis, and of jobs what ``work`` says of them. It needs no server to be tested: leases and work are arguments.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Protocol

import structlog
from redis.exceptions import RedisError, ResponseError

from arqonce.connection.primary import StaleConnectionError
from arqonce.connection.redis import is_refusal
from arqonce.engine.guard import LeaseGuard
from arqonce.engine.idle import Bell, Waking
from arqonce.engine.leases import RECONNECT_EVERY
from arqonce.engine.overdue import end_overdue_runs
from arqonce.engine.queue import Queue
from arqonce.engine.runs import Runs
from arqonce.engine.slots import Slots
from arqonce.trouble import AwayTime, Trouble
from arqonce.work import Gate, Observer, Work

_CHORES_LIMIT = timedelta(seconds=5)
"""How long a turn's chores may take. redis-py repeats them three times, in which a silent Redis is not noticed."""

_CLOSE_LIMIT = timedelta(seconds=8)
"""How long the end may take for jobs that were cancelled and for Redis to take the last results and keys, together."""

_STEP_LIMIT = timedelta(seconds=3)
"""How long each step of that may take."""

_HELD_LIMIT = timedelta(seconds=1)
"""How long a job may take to end after its second cancellation. After that it counts as held."""

_IDLE_LOOK_FOR_ABORTS = timedelta(seconds=10)
"""How often requests to abort are looked at while no job runs: old ones must go, or they would hit a later job."""

_LOOK_FOR_ROOM = timedelta(milliseconds=250)
"""How often a worker without room looks for it at least: a batch that is slow makes room without ending (``slots``)."""

_GATHER = timedelta(milliseconds=2)
"""How long a backlog's next claim waits for more free slots: one claim for each would cost Redis more than the job."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.engine")


class Phase(IntEnum):
    """What an engine is about. It only ever goes on to a later phase."""

    WORKING = 1
    STOPPING = 2
    """Nothing is claimed; running jobs may end."""
    ENDING = 3
    """The main loop ends, and running jobs are cancelled."""


class Chores(Protocol):
    """What else is due from time to time in the main loop."""

    async def do(self) -> None:
        """Do what is due."""
        ...

    def due_in(self) -> float:
        """Return in how many seconds something is due."""
        ...

    def hurry(self) -> None:
        """Do everything the next time: Redis was gone."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How an engine works."""

    slots: int
    """How many runs there may be at once."""

    aside: int = 0
    """How many more there may be that only wait for others (``Runs.aside``)."""

    lease: timedelta
    """How long a claimed job stays locked without renewal."""

    poll: timedelta
    """How often the queue is looked at where Redis cannot wake us, and requests to abort while jobs run."""

    burst: bool = False
    """End when the queue is empty."""

    most: float = math.inf
    """Most jobs that a burst starts."""

    aborts: bool = True
    """Whether jobs can be aborted."""


class Engine:
    """Works until it is stopped or, in a burst, until its queues are empty. Belongs to one event loop."""

    def __init__(  # noqa: PLR0913 - the parts that it is made of
        self, leases: Queue, work: Work, options: Options, *, gate: Gate, chores: Sequence[Chores], observer: Observer
    ) -> None:
        """Claim nothing yet. While ``gate`` is closed nothing is claimed."""
        self._leases = leases
        self._work = work
        self._options = options
        self._gate = gate
        self._chores = chores
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._bell = Bell()
        self.runs = Runs(work, leases, Slots(options.slots, options.aside), bell=self._bell, observer=observer)
        self._waking = Waking(leases, self._bell, lease=options.lease, poll=options.poll, watches=not options.burst)
        self.phase = Phase.WORKING
        self.held: list[str] = []
        """The jobs that go on though they were cancelled; nobody waits for them."""
        self.is_quiet = False
        """Whether an operator wants it to claim no more jobs until told otherwise."""
        self._must_get_idle = False
        self._is_behind = False
        self._has_told_wait = False
        self._trouble = Trouble(_log, over="Redis is back")
        self._last_look_for_aborts = -math.inf
        self._claiming: asyncio.Task[bool] | None = None
        self._started = 0
        self._background: Sequence[asyncio.Task[None]] = ()
        self._guard = LeaseGuard(leases, options.lease, self.runs.all_claims, self.runs.longest_limit)
        self._closed_by = math.inf

    @property
    def redis_away(self) -> AwayTime:
        """For how long Redis was away."""
        return self._trouble.away

    async def run(self) -> None:
        """Work until cancelled or, in burst mode, until the queue is empty.

        Raises:
            RedisError: in burst mode, where a lost Redis is not waited for.
        """
        self._observer.ready()
        renewing = asyncio.create_task(self._renew_leases(), name="heartbeat")
        overdue = asyncio.create_task(end_overdue_runs(self.runs, self._work), name="overdue")
        self._background = (renewing, overdue)
        self._guard.start()
        while True:
            has_more = await self._turn()
            if self._options.burst and await self._is_burst_over():
                await self.runs.settle()
                self._end_background()
                return
            if not (has_more and self._room() > 0):
                await self._waking.wait(self._until_next_chore())

    def stop(self, *, at_once: bool = False) -> None:
        """Claim no more; ``at_once`` also cancels all runs and ends the main loop at its next turn."""
        self.phase = max(self.phase, Phase.ENDING if at_once else Phase.STOPPING)
        self._bell.ring()
        self.runs.stop()
        if at_once:
            self.runs.cancel()

    def be_quiet(self, quiet: bool) -> bool:  # noqa: FBT001 - an order's value
        """Claim no more jobs, or claim jobs again; running ones are not touched. Return whether that is new."""
        is_new = quiet != self.is_quiet
        self.is_quiet = quiet
        if is_new:
            _log.info("told to take no more jobs" if quiet else "told to take jobs again", jobs=len(self.runs.tasks))
            self._bell.ring()
        return is_new

    async def _is_burst_over(self) -> bool:
        if self._jobs_left() <= 0 or await self._leases.is_queue_empty():
            return True
        if not (self.runs.claims or self._has_told_wait) and self._gate.is_open:
            self._has_told_wait = True
            _log.info("the burst waits for jobs that are not due, or that other workers run")
        return False

    def _jobs_left(self) -> float:
        return self._options.most - self._started

    def _until_next_chore(self) -> float:
        """Return for how many seconds nothing but a claim can be due."""
        poll = self._options.poll.total_seconds()
        if self._waking.is_away:
            return min(poll, _LOOK_FOR_ROOM.total_seconds())
        if self.runs.claims and self._options.aborts:
            return poll
        due = min((chores.due_in() for chores in self._chores), default=math.inf)
        return max(0.01, min(due, _IDLE_LOOK_FOR_ABORTS.total_seconds()))

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._options.lease.total_seconds() / 3)
            self._guard.beat()
            with suppress(RedisError, OSError):  # the main loop logs it
                await self._leases.renew(list(self.runs.claims))

    async def _turn(self) -> bool:
        """Claim and do chores; return whether more jobs may be due. arq ends at the first error of Redis."""
        if self.phase is Phase.ENDING:
            # On Python 3.11 a cancellation can be lost in redis-py, whose time limit uses wait_for.
            raise asyncio.CancelledError
        has_more = False
        try:
            has_more = await self._claim_or_rest()
            async with asyncio.timeout(_CHORES_LIMIT.total_seconds()):
                await self._abort_jobs()
                for chores in self._chores:
                    await chores.do()
        except (RedisError, OSError) as error:
            await self._wait_out(error)
        else:
            self._trouble.note(None)
        return has_more

    async def _wait_out(self, error: Exception) -> None:
        is_first = not self._trouble.is_known
        self._trouble.note(_trouble_of(error, is_first=is_first), reason=str(error) or type(error).__name__)
        for chores in self._chores:  # a Redis that can be read but not written to is not back
            chores.hurry()
        if not (is_first and isinstance(error, StaleConnectionError)):  # the next connection may reach another
            await asyncio.sleep(RECONNECT_EVERY.total_seconds())

    async def _claim_or_rest(self) -> bool:
        """Claim if it is time to; leave it to others if we cannot."""
        if self._room() <= 0:
            # Runs that have stepped back may have taken the slots of a worker that watches.
            takes_none = self.phase is not Phase.WORKING or self.is_quiet
            if takes_none or self._waking.wants_claim or self.runs.slots.free <= 0:
                await self._waking.rest()
        elif await self._gate_is_open():
            if self._waking.wants_claim:
                return await self._claim_shielded()
            await self._waking.renew()
        return False

    async def _gate_is_open(self) -> bool:
        """While it is closed, take turns slowly and claim nothing: a claimed job could only fail."""
        if self._gate.is_open:
            return True
        await self._waking.rest()  # another worker may find it open
        if await self._gate.check():
            return True
        await asyncio.sleep(RECONNECT_EVERY.total_seconds())
        return False

    async def _claim_shielded(self) -> bool:
        """Claim and start jobs, not cut short by the worker's end: arq leaves a job locked whose claim is cut off."""
        self._claiming = asyncio.create_task(self._claim(), name="claim")
        return await asyncio.shield(self._claiming)

    async def _claim(self) -> bool:
        if self._is_behind and self.runs.slots.are_few:
            await asyncio.sleep(_GATHER.total_seconds())
        room = self._room()
        if room <= 0:
            return False
        was_idle = not self.runs.claims
        claimed = await self._waking.claim(room, is_idle=was_idle)
        self._must_get_idle = claimed.must_get_idle
        if was_idle and claimed.claims:
            self._last_look_for_aborts = self._loop.time()  # the claim has looked itself
        self._started += await self.runs.start(claimed)
        self._is_behind = claimed.is_full
        return claimed.is_full

    def _room(self) -> int:
        """Return how many jobs may be claimed; none after the signal to stop, or while it is quiet."""
        if self.phase is not Phase.WORKING or self.is_quiet or (self._must_get_idle and self.runs.claims):
            return 0
        return int(min(self.runs.slots.room(), self._jobs_left()))

    async def _abort_jobs(self) -> None:
        """Cancel the jobs that somebody wants aborted; looks once in each poll delay, and seldom while none runs."""
        now = self._loop.time()
        pause = self._options.poll if self.runs.claims else _IDLE_LOOK_FOR_ABORTS
        if self._options.aborts and now >= self._last_look_for_aborts + pause.total_seconds():
            self._last_look_for_aborts = now
            self.runs.abort(await self._leases.aborted(self.runs.claims))

    async def close(self) -> None:
        """End all jobs and let another worker watch the queue, in at most eight seconds. Call ``stop`` before."""
        self._closed_by = self._loop.time() + _CLOSE_LIMIT.total_seconds()
        await self._end_claim()
        await self._end_jobs()
        self._end_background()

    def _end_background(self) -> None:
        self._guard.stop()
        for task in self._background:
            task.cancel()

    def step(self) -> float:
        """Return for how many seconds a step of the end may last."""
        return max(0.1, min(_STEP_LIMIT.total_seconds(), self._closed_by - self._loop.time()))

    async def _end_claim(self) -> None:
        if self._claiming is not None:
            await asyncio.wait([self._claiming], timeout=self.step())
        with suppress(RedisError, OSError):
            async with asyncio.timeout(self.step()):
                await self._waking.rest()

    async def _end_jobs(self) -> None:
        if running := set(self.runs.tasks.values()):
            _, running = await asyncio.wait(running, timeout=self.step())
            for task in running:
                task.cancel()
            if running:
                _, running = await asyncio.wait(running, timeout=_HELD_LIMIT.total_seconds())
            self.held = self.runs.give_back_held(running)
            if self.held:
                _log.error("jobs hold on though they were cancelled: they are given back", job_ids=self.held)
        await asyncio.sleep(0)  # what has just ended is handed over in the next turn
        with suppress(TimeoutError):
            async with asyncio.timeout(self.step()):
                await self.runs.recorder.settle()
        self.runs.recorder.cancel()


def _trouble_of(error: Exception, *, is_first: bool) -> str:
    if is_first and isinstance(error, StaleConnectionError):
        return "Redis takes no writes any more: looking for the primary"
    if isinstance(error, ResponseError) or is_refusal(error):  # full, a replica, without its replicas
        return "Redis refuses a command: waiting until it takes it"
    return "Redis is gone: waiting for it"
