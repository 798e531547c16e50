"""The threads of ``asyncio.to_thread``: enough of them for all jobs, also while some are stuck.

asyncio's own pool has a few threads more than the machine has processors. A call cannot be cancelled while it runs: a
handful of calls that hang take all of them, and the next job that wants one fails at its deadline, whatever it does.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, ParamSpec, TypeVar

import structlog

P = ParamSpec("P")
T = TypeVar("T")

_SPARE = 32
"""Threads beyond one for each job."""

_IDLE_LIMIT = timedelta(seconds=60)
"""How long a thread waits for its next call before it ends."""

_LONGEST_WAIT = timedelta(seconds=10)
"""How long a call may wait for a thread before the worker is not well."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.engine.threads")


class JobThreads(ThreadPoolExecutor):
    """A pool in which a call that has outlived its job takes nobody's place.

    It has a thread for each of ``max_jobs`` and 32 more, and replaces as many again of those whose calls nobody waits
    for any more: a deadline or the worker's end has cancelled the job. All are daemons: none holds up the process.
    """

    def __init__(self, max_jobs: int, name_of: Callable[["asyncio.Task[Any] | None"], list[str]]) -> None:
        """Start no thread yet. ``name_of`` says which jobs a task runs."""
        super().__init__(max_workers=1)  # that of the base class: it never starts one
        self._name_of = name_of
        self._places = max_jobs + _SPARE
        self._changing = threading.Condition(threading.Lock())
        self._calls: deque[_Call] = deque()
        self._all = self._idle = 0
        self._stuck: set[_Call] = set()

    @property
    def stuck(self) -> list[str]:
        """What is called by the threads that nobody waits for any more."""
        with self._changing:
            return sorted(call.name for call in self._stuck)

    def problems(self) -> list[str]:
        """Say what is wrong, for the worker's health."""
        with self._changing:
            stuck, first = len(self._stuck), self._calls[0].since if self._calls else None
        found = []
        if stuck >= self._places:
            found.append(f"{stuck} threads are stuck in calls that outlived their jobs, and no more are replaced")
        if first is not None and time.monotonic() - first > _LONGEST_WAIT.total_seconds():
            found.append(f"calls of asyncio.to_thread have waited for more than {_LONGEST_WAIT.total_seconds():g} s")
        return found

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call in a thread as soon as one is free.

        Raises:
            RuntimeError: the machine lets no thread start, and no thread of ours will be free.
        """
        call = _Call(self, partial(fn, *args, **kwargs))
        with self._changing:
            self._calls.append(call)
            try:
                self._find_thread()
            except RuntimeError:
                if self._all <= len(self._stuck):
                    self._calls.pop()
                    raise
        return call

    def _find_thread(self) -> None:
        if self._idle >= len(self._calls):
            self._changing.notify()
        elif self._all < self._places + min(len(self._stuck), self._places):
            threading.Thread(target=self._work, name=f"job-thread-{self._all + 1}", daemon=True).start()
            self._all += 1  # not before: it may not have started

    def _work(self) -> None:
        while (call := self._next()) is not None:
            call.run()
            with self._changing:
                self._stuck.discard(call)
            del call  # or an idle thread would keep its result

    def _next(self) -> "_Call | None":
        with self._changing:
            self._idle += 1
            is_surplus = self._all - len(self._stuck) > self._places
            found = not is_surplus and self._changing.wait_for(lambda: self._calls, _IDLE_LIMIT.total_seconds())
            self._idle -= 1
            if found:
                return self._calls.popleft()
            self._all -= 1
            return None

    def lose(self, call: "_Call") -> None:
        """Take note that nobody waits for a call that runs: its thread may be stuck, and is replaced."""
        with self._changing:
            if call.done() or call in self._stuck:
                return
            self._stuck.add(call)
            if self._calls:
                with suppress(RuntimeError):
                    self._find_thread()
        _log.warning(
            "a call in a thread outlives its job: it cannot be cancelled",
            call=call.name,
            job_ids=self._name_of(call.task),
            stuck=len(self._stuck),
            cure="give it a time limit of its own, below the job's deadline",
        )

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as its base
        """Wait for nothing: whoever wanted a result has ended."""
        with self._changing:
            self._calls.clear()
        super().shutdown(wait=wait, cancel_futures=cancel_futures)


class _Call(Future[Any]):
    def __init__(self, pool: JobThreads, call: Callable[[], Any]) -> None:
        super().__init__()
        self._pool = pool
        self._call = call
        self.since = time.monotonic()
        try:
            self.task = asyncio.current_task()
        except RuntimeError:  # not from a coroutine
            self.task = None

    @property
    def name(self) -> str:
        """What was called, behind what ``asyncio.to_thread`` wraps around it."""
        call: Any = self._call
        while isinstance(call, partial):
            call = call.args[0] if getattr(call.func, "__name__", "") == "run" and call.args else call.func
        return str(getattr(call, "__qualname__", type(call).__name__))

    def run(self) -> None:
        if not self.set_running_or_notify_cancel():
            return
        try:
            result = self._call()
        except BaseException as error:  # noqa: BLE001 - whatever it is, whoever awaits it gets it
            self.set_exception(error)
        else:
            self.set_result(result)

    def cancel(self) -> bool:
        """Cancel the call if it has not begun; else only its job is over."""
        is_cancelled = super().cancel()
        if not is_cancelled:
            self._pool.lose(self)
        return is_cancelled
