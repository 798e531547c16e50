"""The engine: claims jobs while there is room for them, keeps them its own while they run, and outlives outages.

It knows Redis, and of jobs what ``work`` says of them. It needs no server to be tested: leases and work are arguments.
"""

import asyncio
import math
from collections.abc import Sequence
from datetime import timedelta

import structlog
from redis.exceptions import RedisError

from arqonce.engine.aborts import Aborts
from arqonce.engine.closing import Closing
from arqonce.engine.heartbeat import Heartbeat
from arqonce.engine.idle import Bell, Waking
from arqonce.engine.options import Chores, Options, Phase
from arqonce.engine.outage import Outage
from arqonce.engine.overdue import end_overdue_runs
from arqonce.engine.queue import Queue
from arqonce.engine.renewals import RECONNECT_EVERY
from arqonce.engine.runs import Runs
from arqonce.engine.slots import Slots
from arqonce.work import Gate, Observer, Work

_CHORES_LIMIT = timedelta(seconds=5)
"""How long a turn's chores may take. redis-py repeats them three times, in which a silent Redis is not noticed."""

_IDLE_TURN, _TURN_AT_REST = timedelta(seconds=10), timedelta(minutes=1)
"""How often an idle worker takes a turn at least, and one that leaves chores to others."""

_LOOK_FOR_ROOM = timedelta(milliseconds=250)
"""How often a worker without room looks for it at least: a batch that is slow makes room without ending (``slots``)."""

_GATHER = timedelta(milliseconds=2)
"""How long a backlog's next claim waits for more free slots: one claim for each would cost Redis more than the job."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.engine")


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
        self.bell = Bell()
        self.runs = Runs(work, leases, Slots(options.slots, options.aside), bell=self.bell, observer=observer)
        options.rest.is_busy = lambda: bool(self.runs.claims)
        self._waking = Waking(leases, self.bell, options)
        self.phase = Phase.WORKING
        self.closing = Closing(self.runs, self._waking)
        self.is_quiet = False
        """Whether an operator wants it to claim no more jobs until told otherwise."""
        self._must_get_idle = False
        self._is_behind = False
        self._has_told_wait = False
        self.outage = Outage()
        self._aborts = Aborts(leases, self.runs, options)
        self._claiming: asyncio.Task[bool] | None = None
        self._started = 0
        self._background: list[asyncio.Task[None]] = []
        self._heartbeat = Heartbeat(leases, options.lease, self.runs)

    async def run(self) -> None:
        """Work until cancelled or, in burst mode, until the queue is empty.

        Raises:
            RedisError: in burst mode, where a lost Redis is not waited for.
        """
        self._observer.ready(self.be_quiet)
        beside = {"heartbeat": self._heartbeat.run(), "overdue": end_overdue_runs(self.runs, self._work)}
        for name, coroutine in beside.items():
            self._background.append(task := asyncio.create_task(coroutine, name=name))
            task.add_done_callback(lambda _task: self.bell.ring())
        self._heartbeat.start()
        while True:
            has_more = await self._turn()
            if self._options.burst and await self._is_burst_over():
                await self.runs.settle()
                self._end_background()
                return
            if self._claiming is None and not (has_more and self._room() > 0):
                await self._waking.wait(self._until_next_chore())

    def stop(self, *, at_once: bool = False) -> None:
        """Claim no more; ``at_once`` also cancels all runs and ends the main loop at its next turn."""
        self.phase = max(self.phase, Phase.ENDING if at_once else Phase.STOPPING)
        self.bell.ring()
        self.runs.stop()
        if at_once:
            self.runs.running.cancel()

    def be_quiet(self, quiet: bool) -> bool:  # noqa: FBT001 - an order's value
        """Claim no more jobs, or claim jobs again; running ones are not touched. Return whether that is new."""
        is_new = quiet != self.is_quiet
        self.is_quiet = quiet
        if is_new:
            told = "told to take no more jobs" if quiet else "told to take jobs again"
            _log.info(told, jobs=len(self.runs.running.tasks))
            self.bell.ring()
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
        longest = _TURN_AT_REST if self._options.rest.is_left_to_others else _IDLE_TURN
        return max(0.01, min(due, longest.total_seconds()))

    async def _turn(self) -> bool:
        """Claim and do chores; return whether more jobs may be due. arq ends at the first error of Redis."""
        if self.phase is Phase.ENDING or any(task.done() for task in self._background):
            # On Python 3.11 redis-py loses cancellations, also where a job cancels all tasks: ours then ended alone.
            raise asyncio.CancelledError
        has_more = False
        try:
            has_more = await self._claim_or_rest()
            async with asyncio.timeout(_CHORES_LIMIT.total_seconds()):
                await self._aborts.do()
                for chores in self._chores:
                    await chores.do()
        except (RedisError, OSError) as error:
            self._waking.lose()
            await self.outage.wait_out(error, self._chores)
        else:
            self.outage.end()
        return has_more

    async def _claim_or_rest(self) -> bool:
        """Claim if it is time to; leave it to others if we cannot."""
        if self._claiming is not None:
            return await self._claimed(self._claiming)
        if self._room() <= 0:
            # Runs that have stepped back may have taken the slots of a worker that watches.
            takes_none = self.phase is not Phase.WORKING or self.is_quiet
            if takes_none or self._waking.wants_claim or self.runs.slots.free <= 0:
                await self._waking.resign()
        elif await self._gate_is_open():
            if self._waking.wants_claim:
                return await self._claimed(asyncio.create_task(self._claim(), name="claim"))
            await self._waking.renew()
        return False

    async def _gate_is_open(self) -> bool:
        """While it is closed, take turns slowly and claim nothing: a claimed job could only fail."""
        if self._gate.is_open:
            return True
        await self._waking.resign()  # another worker may find it open
        if await self._gate.check():
            return True
        await asyncio.sleep(RECONNECT_EVERY.total_seconds())
        return False

    async def _claimed(self, claiming: "asyncio.Task[bool]") -> bool:
        """Wait for a claim. The worker's end does not cut it short: arq leaves a job locked whose claim is cut off."""
        self._claiming = claiming
        try:
            return await asyncio.shield(claiming)
        finally:
            if self._claiming is claiming and claiming.done():
                self._claiming = None

    async def _claim(self, room: int | None = None) -> bool:
        """Claim and start jobs. If more are due and there is room, ask for these first: Redis works while jobs run."""
        if self._is_behind and self.runs.slots.are_few:
            await asyncio.sleep(_GATHER.total_seconds())
        if (room := room or self._room()) <= 0:
            return False
        was_idle = not self.runs.claims
        claimed = await self._waking.claim(room, is_idle=was_idle)
        self._must_get_idle = claimed.must_get_idle
        if was_idle and claimed.claims:
            self._aborts.note()
        self._is_behind = claimed.is_full
        if self._is_behind and (more := self._room_beside(len(claimed.claims))) > 0:
            self._claiming = asyncio.create_task(self._claim(more), name="claim")
        try:
            self._started += await self.runs.start(claimed)
        finally:
            if claimed.claims:
                self._heartbeat.wake()
                self._options.rest.on_jobs()
        return claimed.is_full

    def _room_beside(self, claimed: int) -> int:
        """Return how many jobs may be claimed while so many others that were claimed have not started."""
        may_claim = self._gate.is_open and not self._must_get_idle and self._room() > 0
        return int(min(self.runs.slots.room_beside(claimed), self._jobs_left() - claimed)) if may_claim else 0

    def _room(self) -> int:
        """Return how many jobs may be claimed; none after the signal to stop, or while it is quiet."""
        if self.phase is not Phase.WORKING or self.is_quiet or (self._must_get_idle and self.runs.claims):
            return 0
        return int(min(self.runs.slots.room(), self._jobs_left()))

    async def close(self) -> None:
        """End all jobs and let another worker watch the queue, in at most eight seconds. Call ``stop`` before."""
        await self.closing.close(self._claiming)
        self._end_background()

    def _end_background(self) -> None:
        self._heartbeat.stop()
        for task in self._background:
            task.cancel()
