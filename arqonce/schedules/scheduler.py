"""Promises the jobs of slots that have come. Runs in every worker, and in the command ``relay``; none is the leader.

The slot's job goes into the outbox in the transaction that moves the schedule's row to its next slot. Whoever locks the
row first does it; the others skip the row. Should the row ever be set back, the job's id, which names the slot, is
known already. From the outbox on the job is one like any other, whatever becomes of Redis or of workers.

The clock is the database's. An idle scheduler executes one statement every five to ten seconds, however many schedules
there are, and one when the next slot of its fleet comes. That of a worker that rests (``arqonce.rest``) does so every
half to whole minute, and when that slot comes. Schedules of other fleets in the same table cost it nothing.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from arqonce.background import running
from arqonce.database.faults import is_transient, why_delayed, why_not_written
from arqonce.ledger.schedules import (
    DueSchedule,
    Look,
    Progress,
    SlotJob,
    advance,
    fleets_of,
    lock_due,
    look,
    promise_slots,
)
from arqonce.rest import Rest
from arqonce.schedules.decision import MOST, Decision, SkipReason, decide
from arqonce.schedules.registration import Registration
from arqonce.schedules.schedule import Schedule
from arqonce.spec import Registry
from arqonce.tracing import UNTRACED, Sending, sending
from arqonce.trouble import Trouble
from arqonce.wire.keys import now_ms
from arqonce.wire.request import request_hash, write_job

PROMISED = "promised"
"""What becomes of a slot that is not skipped."""

Clock = Callable[[], datetime | None]

_LOOK_EVERY = timedelta(seconds=10)
"""Longest time between two looks. Each is random, from half of it to all of it: another worker may have changed rows,
or the database's clock was set."""

_LOOK_AT_REST = timedelta(minutes=1)
"""The same while the worker rests: others look sooner."""

_LOOK_SOONEST = timedelta(milliseconds=50)
"""Shortest time between two looks; also the longest random delay after a slot, so that not all workers look at once."""

_RENEW_EVERY = timedelta(minutes=2)
"""Longest time between two renewals of the release, less than half of ``ABSENT_AFTER``; random, as above."""

_AGAIN = timedelta(milliseconds=500)
"""Pause after a failure."""

_LIMIT = timedelta(seconds=10)
"""Longest time of one transaction, the wait for a connection included."""

_MAKING = timedelta(seconds=2)
"""After this no more payloads are made in a transaction: the functions of many slots may take longer than it may."""

_REST = timedelta(seconds=30)
"""Time until a schedule is tried again whose payload could not be made."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.schedules.scheduler")


def database_clock() -> datetime | None:
    """Let the database say the time."""
    return None


@asynccontextmanager
async def open_scheduler(
    sessions: async_sessionmaker[AsyncSession],
    registry: Registry,
    *,
    queue: str,
    removes: bool,
    rest: Rest | None = None,
) -> AsyncIterator["Scheduler"]:
    """Run a scheduler in the background until the end. Its first turn is complete when this yields.

    ``removes`` says whether this process has all schedules of its queue's workers (``Registration``).
    """
    scheduler = Scheduler(sessions, registry, queue=queue, removes=removes, rest=rest)
    await scheduler.try_payloads()
    wait = await scheduler.turn()
    async with running(partial(scheduler.run, wait), name="scheduler"):
        yield scheduler


class Scheduler:
    """Looks at the schedules when the next slot comes, and every few seconds."""

    def __init__(  # noqa: PLR0913 - the registry, and what tests and workers replace
        self,
        sessions: async_sessionmaker[AsyncSession],
        registry: Registry,
        *,
        queue: str,
        removes: bool = True,
        clock: Clock = database_clock,
        rest: Rest | None = None,
    ) -> None:
        """Query nothing yet. ``clock`` replaces the database's, for tests."""
        self._idleness = rest or Rest()
        self._at_rest = timedelta(0)
        self._sessions = sessions
        self._registry = registry
        self._queue = queue
        self._clock = clock
        self._registration = Registration(registry.schedules, fleet=queue, removes=removes and bool(registry.names))
        self._renew_at = 0.0
        self._by_definition = {schedule.definition: schedule for schedule in registry.schedules.values()}
        self._definitions = sorted(self._by_definition)
        self._fleets = [queue]
        """Those that own our schedules: workers of other queues may have the same ones."""
        self._resting: dict[int, float] = {}
        self._trouble = Trouble(_log, over="schedules go on")
        self.slots = Counter({(name, PROMISED): 0 for name in registry.schedules})
        """How many slots this process has decided on, by schedule and what became of them."""

    async def run(self, wait: timedelta = timedelta(0)) -> None:
        """Take turns until cancelled."""
        while True:
            await self._idleness.sleep(wait, self._at_rest)
            wait = await self.turn()

    async def turn(self) -> timedelta:
        """Renew the registration if it is time, promise what is due; return how long to wait. Never raises."""
        self._at_rest = timedelta(0)
        try:
            if time.monotonic() >= self._renew_at:
                await self.renew()
            wait = await self.promise_due()
        except Exception as error:  # noqa: BLE001 - any error: if this ended, nothing would promise the jobs
            self._registration.forget()
            trouble, facts = _trouble_of(error)
            self._trouble.note(trouble, **facts)
            return _AGAIN if is_transient(error) or why_not_written(error) else _LOOK_EVERY
        self._trouble.note(None)
        return wait

    async def try_payloads(self) -> None:
        """Log which functions cannot make the payload of their next slot. The worker starts all the same."""
        for schedule in self._by_definition.values():
            if callable(schedule.payload) and (slots := schedule.next_slots()):
                try:
                    self._job(schedule, slots[0], UNTRACED)
                except Exception as error:  # noqa: BLE001 - the application's function may raise anything
                    slot = slots[0].isoformat()
                    _log.error(
                        "the payload of the next slot cannot be made", schedule=schedule.name, slot=slot, exc_info=error
                    )
                await asyncio.sleep(0)

    async def renew(self) -> None:
        """Register the schedules, or renew the registration."""
        async with self._transaction() as session:
            await self._registration.renew(session, self._clock())
            if self._definitions:
                self._fleets = sorted({self._queue, *await fleets_of(session, sorted(self._registry.schedules))})
        self._renew_at = time.monotonic() + _up_to(_RENEW_EVERY).total_seconds()

    async def promise_due(self) -> timedelta:
        """Promise the jobs of all slots that have come; return how long to wait for the next one.

        One round trip if there are none, else five and more.
        """
        if not self._definitions:
            self._at_rest = _LOOK_AT_REST
            return _LOOK_EVERY
        found = await self._look(None)  # those of other releases, too: ten thousand definitions are not sent each time
        while found.is_due:
            definitions = self._awake()
            found = await self._look(definitions)
            if found.is_due and not await self._promise_some(definitions):
                return _AGAIN  # another worker has locked them
        wait, self._at_rest = _up_to(_LOOK_EVERY), _up_to(_LOOK_AT_REST)
        if found.following is not None:
            slot = found.following - found.now + _LOOK_SOONEST * random.random()  # noqa: S311 - no secret
            wait, self._at_rest = min(wait, slot), min(self._at_rest, slot)
        return max(wait, _LOOK_SOONEST)

    async def _look(self, definitions: list[int] | None) -> Look:
        async with self._transaction() as session:
            return await look(session, self._fleets, definitions, self._clock())

    def _awake(self) -> list[int]:
        """Return the definitions but those whose payloads could not be made a moment ago."""
        if not self._resting:
            return self._definitions
        now = time.monotonic()
        self._resting = {definition: until for definition, until in self._resting.items() if until > now}
        return [definition for definition in self._definitions if definition not in self._resting]

    async def _promise_some(self, definitions: list[int]) -> bool:
        """Promise jobs in one transaction; return whether a schedule was due that nobody else had locked."""
        jobs: list[SlotJob] = []
        done: list[Progress] = []
        skipped: list[tuple[str, Decision]] = []
        async with asyncio.timeout(_LIMIT.total_seconds()) as limit, self._sessions.begin() as session:
            rows = await lock_due(session, self._fleets, definitions, self._clock())
            until = time.monotonic() + _MAKING.total_seconds()
            for row in rows:
                if len(jobs) >= MOST or time.monotonic() > until:
                    break
                schedule = self._by_definition[row.definition]
                decision = _decide(schedule, row)
                try:
                    made = [job async for job in self._make(schedule, decision.promised, until, limit)]
                except Exception as error:  # noqa: BLE001 - the application's function may raise anything
                    self._rest(schedule, error)
                    continue
                jobs += made
                decision = decision.cut(len(made))
                done.append(_progress(schedule, decision))
                skipped.append((schedule.name, decision))
            await promise_slots(session, jobs)
            await advance(session, done)
        for name, decision in skipped:
            _tell(name, decision)
            self.slots[name, PROMISED] += len(decision.promised)
            for skip in decision.skips:
                self.slots[name, str(skip.reason)] += skip.count
        return bool(rows)

    async def _make(
        self, schedule: Schedule, slots: Sequence[datetime], until: float, limit: asyncio.Timeout
    ) -> AsyncIterator[SlotJob]:
        """Yield the jobs of the first slots, one at least, and others until that time. Others have turns between them.

        The time that functions of the application take is no part of the transaction's limit: it would never end.
        """
        for number, slot in enumerate(slots):
            if number and time.monotonic() > until:
                return
            yield self._traced_job(schedule, slot)
            limit.reschedule(asyncio.get_running_loop().time() + _LIMIT.total_seconds())
            await asyncio.sleep(0)

    def _traced_job(self, schedule: Schedule, slot: datetime) -> SlotJob:
        with sending("promise", schedule.queue or self._queue, is_root=True) as span:
            return self._job(schedule, slot, span)

    def _job(self, schedule: Schedule, slot: datetime, span: Sending) -> SlotJob:
        payload, job_id = schedule.payload_for(slot), schedule.job_id(slot)
        self._registry.require_kind_of(schedule, payload)
        return SlotJob(
            job_id=job_id,
            job_name=payload.job_name,
            queue=schedule.queue or self._queue,
            message=write_job(payload, enqueued_ms=now_ms(), trace=span.begin([payload], [job_id])),
            request_hash=request_hash(payload),
            due_at=slot,
        )

    def _rest(self, schedule: Schedule, error: Exception) -> None:
        """Leave the slot undecided, and look at the others first."""
        self._resting[schedule.definition] = time.monotonic() + _REST.total_seconds()
        _log.error(
            "the payload of a slot cannot be made: it is tried again until catch_up is over",
            schedule=schedule.name,
            exc_info=error,
        )

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        async with asyncio.timeout(_LIMIT.total_seconds()), self._sessions.begin() as session:
            yield session


def _decide(schedule: Schedule, row: DueSchedule) -> Decision:
    return decide(schedule, now=row.now, next_slot=row.next_slot, is_owed=row.is_owed, paused_until=row.paused_until)


def _progress(schedule: Schedule, decision: Decision) -> Progress:
    last = decision.promised[-1] if decision.promised else None
    skip = decision.skips[-1] if decision.skips else None
    return Progress(
        name=schedule.name,
        next_slot=decision.next_slot,
        last_slot=last,
        last_job_id=None if last is None else schedule.job_id(last),
        skipped=sum(skip.count for skip in decision.skips),
        last_skipped=None if skip is None else skip.last,
        skip_reason=None if skip is None else str(skip.reason),
    )


def _tell(name: str, decision: Decision) -> None:
    for skip in decision.skips:
        log = _log.warning if skip.reason is SkipReason.TOO_OLD else _log.info
        log(
            "slots skipped",
            schedule=name,
            reason=str(skip.reason),
            count=skip.count,
            first=skip.first.isoformat(),
            last=skip.last.isoformat(),
        )


def _up_to(longest: timedelta) -> timedelta:
    return longest * random.uniform(0.5, 1)  # noqa: S311 - no secret


def _trouble_of(error: Exception) -> tuple[str, dict[str, object]]:
    """Return the event and its facts: of an outage the reason, of anything else where it was raised."""
    if reason := why_not_written(error):
        return f"schedules wait: PostgreSQL cannot be written to: {reason}", {}
    if reason := why_delayed(error):
        return "schedules wait for PostgreSQL", {"reason": reason}
    return "schedules failed and are tried again", {"exc_info": error}
