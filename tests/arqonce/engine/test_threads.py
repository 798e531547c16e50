"""Threads for jobs, also while calls in others never end. No server is needed."""

import asyncio
import threading
import weakref
from collections.abc import Iterator

import pytest

from arqonce.engine import threads
from arqonce.engine.threads import JobThreads


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Yield what lets hanging calls end."""
    event = threading.Event()
    yield event
    event.set()


async def _lose(pool: JobThreads, release: threading.Event) -> None:
    """Let a call hang that nobody waits for any more."""
    begun = threading.Event()

    def hang() -> None:
        begun.set()
        release.wait(30)

    call = asyncio.get_running_loop().run_in_executor(pool, hang)
    while not begun.is_set():
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.sleep(0)


async def test_a_call_that_outlives_its_job_takes_nobodys_place(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many are replaced as the pool has threads; then it says that it is not well, until one of them ends."""
    monkeypatch.setattr(threads, "_SPARE", 1)
    pool = JobThreads(1, lambda _task: ["j1"])
    loop = asyncio.get_running_loop()

    answers = []
    for _ in range(2):
        assert pool.problems() == []
        await _lose(pool, release)
        answers.append(await asyncio.wait_for(loop.run_in_executor(pool, lambda: "done"), 5))

    assert (answers, len(pool.stuck)) == (["done"] * 2, 2)
    assert pool.problems() == ["2 threads are stuck in calls that outlived their jobs, and no more are replaced"]
    release.set()
    while pool.stuck:
        await asyncio.sleep(0.001)
    assert pool.problems() == []


async def test_calls_that_wait_long_for_a_thread_are_told_of(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Healthy jobs would fail at their deadlines, and nobody know why."""
    monkeypatch.setattr(threads, "_SPARE", 0)
    monkeypatch.setattr(threads, "_LONGEST_WAIT", threads._LONGEST_WAIT * 0)
    pool = JobThreads(1, lambda _task: [])
    loop = asyncio.get_running_loop()
    calls = [loop.run_in_executor(pool, release.wait, 30) for _ in range(2)]

    problems = pool.problems()
    release.set()
    await asyncio.gather(*calls)

    assert problems == ["calls of asyncio.to_thread have waited for more than 0 s"]


async def test_threads_are_used_again_and_errors_come_back() -> None:
    """One after the other, in the one thread that is idle; whatever a call raises."""
    pool = JobThreads(8, lambda _task: [])
    loop = asyncio.get_running_loop()

    used = set()
    for _ in range(10):
        used.add(await loop.run_in_executor(pool, threading.get_ident))
        await asyncio.sleep(0.005)

    assert len(used) < 3
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(pool, lambda: 1 / 0)


async def test_threads_that_cannot_start_take_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has none left for a while: calls fail and are not made later, or wait for a thread of ours."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "_SPARE", 1)
    pool, loop, made = JobThreads(1, lambda _task: []), asyncio.get_running_loop(), list[int]()
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        for number in range(3):
            with pytest.raises(RuntimeError, match="can't start"):
                await asyncio.wait_for(loop.run_in_executor(pool, made.append, number), 5)
    busy = threading.Event()
    first = loop.run_in_executor(pool, busy.wait, 5)
    with monkeypatch.context() as without_threads:
        without_threads.setattr(threading.Thread, "start", refuse)
        second = loop.run_in_executor(pool, lambda: "waited")
    busy.set()

    assert list(await asyncio.wait_for(asyncio.gather(first, second), 5)) == [True, "waited"]
    assert made == []


async def test_an_idle_thread_keeps_no_result() -> None:
    """It may be large, and the thread idle for a minute."""
    pool, loop = JobThreads(1, lambda _task: []), asyncio.get_running_loop()
    kept = weakref.ref(await loop.run_in_executor(pool, threading.Event))

    async with asyncio.timeout(5):
        while kept() is not None:
            await asyncio.sleep(0.001)
