"""Runs that step aside, between a queue in memory and jobs of the test's own, on a clock that jumps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta

from structlog.testing import capture_logs

from arqonce.engine.aside import step_aside
from arqonce.engine.engine import Engine
from arqonce.engine.options import Options
from arqonce.work import AlwaysOpen, Observer, Outcome
from tests.arqonce.engine.clock import on_its_own_clock, until
from tests.arqonce.engine.queue_in_memory import QueueInMemory
from tests.arqonce.engine.scripted_work import DONE, ScriptedJob, ScriptedWork, sleep


class _Stage:
    """An engine with two slots, and how many jobs were where at once."""

    def __init__(self, *, aside: int) -> None:
        self.queue = QueueInMemory()
        self.work = ScriptedWork(slow=self._slow, sleep=sleep)
        options = Options(slots=2, aside=aside, lease=timedelta(hours=1), poll=timedelta(seconds=0.5))
        self.engine = Engine(
            self.queue, self.work, options, gate=AlwaysOpen(), chores=[], observer=Observer()
        )  # fmt: skip
        self.aside = self.most_aside = self.stored = self.most_storing = 0
        self._storing = 0
        self.goes_on = asyncio.Event()

    async def _slow(self, _job: ScriptedJob) -> Outcome:
        async with step_aside(self.engine.runs):
            self.aside += 1
            self.most_aside = max(self.most_aside, self.aside)
            try:
                await self.goes_on.wait()
            finally:
                self.aside -= 1
        with self._counted():
            await asyncio.sleep(1)
        return DONE

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._storing += 1
        self.most_storing = max(self.most_storing, self._storing)
        try:
            yield
            self.stored += 1
        finally:
            self._storing -= 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the engine beside the test."""
        with capture_logs():
            task = asyncio.create_task(self.engine.run())
            try:
                yield
            finally:
                self.engine.stop(at_once=True)
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                await self.engine.close()

    def free(self) -> int:
        """Return how many slots are free."""
        return self.engine.runs.slots.free


@on_its_own_clock
async def test_more_jobs_than_slots_wait_for_others_and_no_more_use_a_slot() -> None:
    """And a job that needs a slot all the time finds one."""
    stage = _Stage(aside=20)
    stage.queue.enqueue("slow", *(f"slow-{number}" for number in range(20)))

    async with stage.running():
        await until(lambda: stage.aside == 20)
        stage.queue.enqueue("sleep", "ordinary")
        await until(lambda: "ordinary" in stage.queue.results)
        aside_meanwhile = stage.aside
        stage.goes_on.set()
        await until(lambda: not stage.queue.jobs)
        await until(lambda: stage.free() == 2)

    assert (aside_meanwhile, stage.stored, stage.most_storing) == (20, 20, 2)
    assert stage.queue.results == dict.fromkeys([*(f"slow-{number}" for number in range(20)), "ordinary"], b"done")


@on_its_own_clock
async def test_who_finds_no_place_aside_keeps_its_slot() -> None:
    """So the worker claims no more than it can serve: another one may have room."""
    stage = _Stage(aside=3)
    stage.queue.enqueue("slow", *map(str, range(10)))

    async with stage.running():
        await until(lambda: stage.aside == 3)
        await asyncio.sleep(5)
        claimed = len(stage.queue.claimed)
        stage.goes_on.set()
        await until(lambda: not stage.queue.jobs)
        await until(lambda: stage.free() == 2)

    assert (claimed, stage.most_aside, stage.stored) == (5, 3, 10)


@on_its_own_clock
async def test_jobs_are_aborted_wherever_they_are() -> None:
    """Aside, or waiting for a place there, or for a slot: nothing of it is lost."""
    stage = _Stage(aside=3)
    stage.queue.enqueue("slow", *map(str, range(5)))

    async with stage.running():
        await until(lambda: stage.aside == 3)
        await asyncio.sleep(1)
        stage.engine.runs.running.abort({b"0", b"4"})  # one aside, and one that waits
        await until(lambda: len(stage.queue.results) == 2)
        stage.queue.enqueue("sleep", "a", "b")
        await until(lambda: stage.aside == 3)
        stage.goes_on.set()
        await asyncio.sleep(0.01)
        stage.engine.runs.running.abort({b"3"})  # one that waits for a slot, or has one
        await until(lambda: not stage.queue.jobs)
        await until(lambda: stage.free() == 2)

    results = stage.queue.results
    assert {name for name, result in results.items() if result == b"aborted"} == {"0", "3", "4"}
    assert {name for name, result in results.items() if result == b"done"} == {"1", "2", "a", "b"}


@on_its_own_clock
async def test_an_abandoned_run_frees_its_place_and_nothing_twice() -> None:
    """Whatever it waits for."""
    stage = _Stage(aside=1)
    stage.queue.enqueue("slow", "aside", "waits")

    async with stage.running():
        await until(lambda: stage.aside == 1)
        await asyncio.sleep(1)
        for task in stage.engine.runs.running.all_tasks():
            run = stage.engine.runs.abandon(task)
            assert run is not None
            await stage.engine.runs.end_abandoned(run)
        free_at_once = stage.free()
        stage.goes_on.set()
        await asyncio.sleep(5)
        free = stage.free()
        stage.queue.enqueue("slow", "next")
        await until(lambda: "next" in stage.queue.results)

    assert (free_at_once, free) == (2, 2)
    assert stage.queue.results == {"aside": b"overdue", "waits": b"overdue", "next": b"done"}
