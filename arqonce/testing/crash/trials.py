"""Tries the crash points of one job, several at once, each in its own world, and compares how the job ends."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from arqonce.client.client import JobClient
from arqonce.outbox import enqueue_in
from arqonce.payloads import AnyPayload
from arqonce.testing.crash.end_state import State, differences, read_state
from arqonce.testing.crash.forks import Fork, ForkError, Forks, Load
from arqonce.testing.crash.points import Moment
from arqonce.testing.crash.worlds import LEASE, World
from arqonce.wire.keys import JOB_KEY, QUEUE, RESULT_KEY

_KEY = "crash-points"
"""The job's id in every world; the ids of ``others`` begin with it."""

_END_LIMIT = timedelta(seconds=30)
"""How long a job may take to end, including a lease and some pauses of retries."""

_MOST_LATE = timedelta(seconds=5)
"""How long after the end of the lease, if a worker is ready then, the job must run again. Usually it takes 50 ms."""

_LOOK = timedelta(milliseconds=250)
"""How often the queue is checked while the worker reports nothing."""

_MOST_TRIES = 2
"""How often a point of the clean run is tried if runs do not reach it: they do not wait for an answer that has arrived.

A point that only a later run has reached, such as a second connection to Redis, is tried once."""

_MOST_TOLD = 5
"""Most failures that are reported in full."""


class CrashPointError(AssertionError):
    """A crash at some point leads to another end than the clean run; the text names the point."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is to be proven: the arguments of ``CrashPoints.prove``."""

    payloads: tuple[AnyPayload, ...]
    load: Load
    given: Callable[[AsyncSession], Awaitable[object]] | None
    is_promised: bool
    is_dead: bool
    ignore: Collection[str]

    @property
    def keys(self) -> list[str]:
        """The jobs' ids."""
        return [f"{_KEY}-{number}" if number else _KEY for number in range(len(self.payloads))]


class Search:
    """Tries all points, several at once, each in its own world; tries no more after the first failure."""

    def __init__(self, forks: Forks, case: Case, clean: State, points: Iterable[str]) -> None:
        self._forks = forks
        self._case = case
        self._clean = clean
        self._tries = dict.fromkeys(points, 0)
        self._waiting = deque(sorted(self._tries, key=_is_no_commit))
        self._proven: set[str] = set()
        self._failures: list[str] = []

    async def run(self, worlds: Iterable[World]) -> tuple[list[str], list[str]]:
        """Try all points; return those that were reached, and those that only the clean run has reached.

        Raises:
            CrashPointError: a crash at some of them changes the job's end.
            ForkError: a worker does not start or does not end.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for world in worlds:
                    group.create_task(self._try_points(world))
        except* ForkError as errors:
            raise errors.exceptions[0] from None
        if self._failures:
            raise CrashPointError("\n\n".join(["the job ends otherwise after a crash", *self._failures[:_MOST_TOLD]]))
        unreached = [point for point in self._tries if point not in self._proven]
        return [point for point in self._tries if point in self._proven], unreached

    async def _try_points(self, world: World) -> None:
        async with AsyncExitStack() as stack:
            run = Run(self._forks, world, self._case)
            if not self._case.load.is_used_up:
                run.other = await stack.enter_async_context(run.worker(crash_at=None, stands_by=True))
            await self._try_with(run)

    async def _try_with(self, run: "Run") -> None:
        while self._waiting and not self._failures:
            point = self._waiting.popleft()
            outcome = await run.crash(point, self._clean)
            self._tries[point] += 1
            if outcome.problems:
                self._failures.append("\n".join([point, *outcome.problems]))
            elif outcome.is_reached:
                self._proven.add(point)
            elif self._tries[point] < _MOST_TRIES:
                self._waiting.append(point)
            self._add(outcome.passed)

    def _add(self, points: Iterable[str]) -> None:
        """Add points that no earlier run has reached."""
        new = [point for point in points if point not in self._tries]
        self._tries |= dict.fromkeys(new, _MOST_TRIES - 1)
        self._waiting.extend(new)


def _is_no_commit(point: str) -> bool:
    """Sort the points around commits first: a job that takes effect twice usually does so there, and fails soon."""
    return all(moment.value not in point for moment in (Moment.COMMITS, Moment.COMMITTED))


@dataclass
class _Outcome:
    """The outcome of a run that was to crash."""

    is_reached: bool = False
    passed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Run:
    """Runs of a job in one world, which is emptied before each."""

    def __init__(self, forks: Forks, world: World, case: Case) -> None:
        self._forks = forks
        self._world = world
        self._case = case
        self.other: Fork | None = None
        """The worker that stands by to take over. Without it, one is started for each crash."""

    async def count(self) -> tuple[State, list[str]]:
        """Run the job without a crash; return its end state and the points that it reached.

        Raises:
            CrashPointError: the job leaves something unfinished, or is dead against the expectation, or the reverse.
        """
        await self._enqueue()
        points: list[str] = []
        async with self.worker(crash_at="") as fork:
            if await self._crash(fork, points) is not None or await self._is_unfinished():
                raise CrashPointError(f"the job does not end within {_END_LIMIT} without a crash: see {fork.log}")
        clean = await read_state(self._world, self._case.ignore, keys=self._case.keys)
        if unfinished := _unfinished(clean, keys=self._case.keys):
            raise CrashPointError("\n".join(["the clean run leaves something unfinished", *unfinished]))
        _require_end(clean, is_dead=self._case.is_dead)
        return clean, points

    async def crash(self, point: str, clean: State) -> _Outcome:
        """Kill the worker at this point, let another one complete the job, and compare the end states."""
        outcome = _Outcome()
        await self._enqueue()
        async with self.worker(crash_at=point) as fork:
            crash = await self._crash(fork, outcome.passed)
        if crash is not None:
            outcome.is_reached = True
            await self._world.hasten_relay()
            if await self._is_unfinished():
                outcome.problems += await self._recover(crash["at"])
        found = differences(clean, await read_state(self._world, self._case.ignore, keys=self._case.keys))
        outcome.problems += [*found, *(_trail(crash) if found and crash else [])]
        return outcome

    async def _crash(self, fork: Fork, passed: list[str]) -> dict[str, Any] | None:
        """Return the report of the crash after the process has ended; ``None`` if the job ends or hangs."""
        limit = time.monotonic() + _END_LIMIT.total_seconds()
        while time.monotonic() < limit:
            report = await fork.next_report("crash", "through", "point", seconds=_LOOK.total_seconds())
            if report is not None and report["event"] == "point":
                passed.append(report["point"])
            elif report is not None and report["event"] == "crash":
                await fork.end()
                return report
            elif not await self._is_unfinished():
                return None
        return None

    async def _recover(self, crashed_at: float) -> list[str]:
        """Let another worker work until the job ends; return the problems."""
        if self.other is None:
            async with self.worker(crash_at=None) as fork:
                return await self._take_over(fork, crashed_at)
        await self.other.work()
        problems = await self._take_over(self.other, max(crashed_at, time.monotonic() - LEASE.total_seconds()))
        await self.other.rest()
        return problems

    async def _take_over(self, fork: Fork, crashed_at: float) -> list[str]:
        due = crashed_at + LEASE.total_seconds()
        while (report := await self._next_start(fork)) is not None and report["event"] != "begun":
            due = max(due, report["at"])
        if report is None:
            # A request sent right before the crash may have ended the job.
            return [f"the job is not delivered again within {_END_LIMIT}"] if await self._is_unfinished() else []
        late = timedelta(seconds=report["at"] - due)
        problems = [] if late < _MOST_LATE else [f"the job is delivered again {late} after its lease has ended"]
        return problems if await self._end(fork) else [*problems, f"the job does not end within {_END_LIMIT}"]

    async def _next_start(self, fork: Fork) -> dict[str, Any] | None:
        """Wait until the worker can claim or begins the job; ``None`` if the job ends or the time is over."""
        limit = time.monotonic() + _END_LIMIT.total_seconds()
        while time.monotonic() < limit and await self._is_unfinished():
            if report := await fork.next_report("ready", "begun", seconds=_LOOK.total_seconds()):
                return report
        return None

    async def _end(self, fork: Fork) -> bool:
        """Wait for the job's end; return whether it came."""
        limit = time.monotonic() + _END_LIMIT.total_seconds()
        while time.monotonic() < limit:
            await fork.next_report("through", seconds=_LOOK.total_seconds())
            if not await self._is_unfinished():
                return True
        return False

    async def _enqueue(self) -> None:
        await self._world.clear()
        if self._case.given is not None:
            async with AsyncSession(self._world.engine) as session, session.begin():
                await self._case.given(session)
        if self._case.is_promised:
            async with AsyncSession(self._world.engine) as session, session.begin():
                for key, payload in zip(self._case.keys, self._case.payloads, strict=True):
                    await enqueue_in(session, payload, key=key, schema=self._world.settings.database.ledger_schema)
        else:
            url = self._world.settings.queue.url.get_secret_value()
            async with JobClient(url, queue=QUEUE) as client:
                await client.enqueue_many(self._case.payloads, keys=self._case.keys)

    async def _is_unfinished(self) -> bool:
        """Return whether a job, or a follow-up that is due, has not ended.

        Redis is asked again after PostgreSQL: once the jobs have ended, all that they promised is in the outbox or has
        ended, and what has left the outbox is in Redis until its end is recorded there.
        """
        return await self._is_in_redis() or await self._world.owes_jobs() or await self._is_in_redis()

    async def _is_in_redis(self) -> bool:
        keys = self._case.keys
        async with self._world.redis.pipeline() as pipe:
            pipe.exists(*(JOB_KEY + key for key in keys))
            pipe.zcard(QUEUE)
            pipe.exists(*(RESULT_KEY + key for key in keys))
            messages, queued, results = await pipe.execute()
        return bool(messages) or bool(queued) or results < len(keys)

    def worker(self, *, crash_at: str | None, stands_by: bool = False) -> AbstractAsyncContextManager[Fork]:
        """Run a worker in this world."""
        return self._forks.worker(
            self._case.load, self._world.settings, self._world.directory, crash_at=crash_at, stands_by=stands_by
        )


def _unfinished(clean: State, *, keys: Collection[str]) -> list[str]:
    """Return the traces that ended jobs should not have left, or have left more than once.

    Promises that are not due, or are for another queue, stay in the outbox. What a conflict has left is no follow-up.
    """
    left = [f"{place}: {value}" for place, value in clean.items() if _must_be_empty(place) and value]
    places = ("table arqonce.receipts", "table arqonce.dead_jobs")
    ids = [row["job_id"] for place in places for row in clean.get(place, [])]
    ends = [job_id for job_id in ids if job_id in keys or job_id.split("~conflict~")[0] in keys]
    return left if len(ends) <= len(keys) else [*left, f"{len(ends)} receipts and dead letters of {len(keys)} jobs"]


def _require_end(clean: State, *, is_dead: bool) -> None:
    """Raise for an unexpected end: an unknown job, for instance, would die in the same way in every run."""
    letters = clean.get("table arqonce.dead_jobs", [])
    if letters and not is_dead:
        told = [
            ": ".join(str(letter.get(name)) for name in ("job_name", "reason", "explanation")) for letter in letters
        ]
        raise CrashPointError("\n".join(["the clean run ends in a dead letter: expected? give is_dead=True", *told]))
    if is_dead and not letters:
        raise CrashPointError("the clean run was to end in a dead letter (is_dead=True), and ends without one")


def _must_be_empty(place: str) -> bool:
    return place.startswith("redis arq:") and not place.startswith(f"redis {RESULT_KEY}")


def _trail(report: dict[str, Any]) -> list[str]:
    return ["done before, the latest last:", *(f"  {what}" for what in report["done"] or ["nothing in the database"])]
