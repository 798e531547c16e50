"""Reports which code blocks the event loop, while it does: all other jobs of the worker wait.

A timer in the loop increments a counter four times a second. A thread checks the counter and, if it stands still,
examines the stack of the loop's thread. Code that holds the GIL (a long call into C) stops that thread as well and is
not reported.

While the worker has no job, both sleep for four seconds instead, and are woken by its next job. What blocks the loop of
an idle worker, which is no job, is found when it has lasted for 12 to 16 seconds.
"""

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from traceback import walk_stack
from types import FrameType

import structlog

from arqonce.execution.places import handlers_place, places_of_frame
from arqonce.rest import Rest
from arqonce.spec import JobSpec

BLOCKED = timedelta(seconds=1)
"""How long the loop may be blocked. A healthy handler blocks it for milliseconds."""

CURE = "await an async library, or use a thread: await asyncio.to_thread(...)"

_REMEMBERED = timedelta(minutes=2)
"""How long operators see a block after it was found."""

LastBlock = Callable[[], Mapping[str, object] | None]

_LOOK = timedelta(milliseconds=250)
"""Interval of the timer and of the thread's checks."""

_IDLE_LOOK = timedelta(seconds=4)
"""The same while the worker has no job."""

_STAYS_BUSY = 8
"""For how many turns of the timer a worker without jobs counts as busy: it may get the next one at once."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.loop_watch")


@dataclass(frozen=True)
class Standstill:
    """The loop has been blocked for longer than a limit. Contains code positions only."""

    limit: timedelta
    job_name: str | None
    """The job whose handler blocks the loop, if a handler does."""

    at: str
    """The handler's line, or else the innermost line."""

    within: str
    """The innermost line."""


@contextmanager
def watch_loop(
    tell: Callable[[Standstill], None], limits: Sequence[timedelta], rest: Rest | None = None
) -> Iterator[None]:
    """Watch the running event loop of this thread. Call ``tell`` in another thread, once for each limit exceeded.

    Time during which the whole process was stopped does not count. ``rest`` says when the worker has no job.
    """
    rest = rest or Rest()
    watch = _Watch(asyncio.get_running_loop(), tell, sorted(limits), rest)
    watch.beat()
    thread = threading.Thread(target=watch.run, name="loop-watch", daemon=True)
    thread.start()
    rest.on_jobs = watch.wake
    try:
        yield
    finally:
        rest.on_jobs = lambda: None
        watch.end()


@contextmanager
def warn_of_blocks(lease: timedelta, rest: Rest | None = None) -> Iterator[LastBlock]:
    """Log what blocks the running loop: a warning, and an error when it lasts longer than a lease.

    ``rest`` says when the worker has no job. Yields a function that returns the last block: the job's name, and where
    it was.
    """
    last: tuple[float, Standstill] | None = None

    def tell(found: Standstill) -> None:
        nonlocal last
        last = (time.monotonic(), found)
        told = {"at": found.at, "within": found.within, "job_name": found.job_name, "cure": CURE}
        if found.limit >= lease:
            _log.error("the event loop is blocked for longer than a lease: all other jobs of this worker wait", **told)
        else:
            _log.warning("the event loop is blocked", **told)

    def last_block() -> dict[str, object] | None:
        if last is None or time.monotonic() - last[0] > _REMEMBERED.total_seconds():
            return None
        return {"job_name": last[1].job_name, "at": last[1].at}

    with watch_loop(tell, [min(BLOCKED, lease / 2), lease], rest):
        yield last_block


class _Watch:
    """State shared by the loop and the watching thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[Standstill], None],
        limits: Sequence[timedelta],
        rest: Rest,
    ) -> None:
        self._loop = loop
        self._tell = tell
        self._limits = limits
        self._thread = threading.get_ident()
        self._rest = rest
        self._beats = 0
        self._idle_beats = 0
        self._is_over = False
        self._news = threading.Event()
        """Set when the thread must not sleep on: at the end, and when the first job has come."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def _is_idle(self) -> bool:
        return self._idle_beats > _STAYS_BUSY

    @property
    def _every(self) -> float:
        return (_IDLE_LOOK if self._is_idle else _LOOK).total_seconds()

    def beat(self) -> None:
        self._beats += 1
        self._idle_beats = 0 if self._rest.is_busy() else self._idle_beats + 1
        self._timer = self._loop.call_later(self._every, self.beat)

    def wake(self) -> None:
        """Watch closely from now on: there are jobs. Called for each claim, in the loop."""
        if self._is_idle:
            self._idle_beats = 0
            self._cancel_timer()
            self.beat()
            self._news.set()

    def end(self) -> None:
        """Let the thread end by itself: it may be writing to a log that is blocked."""
        self._is_over = True
        self._news.set()
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def run(self) -> None:
        seen, stood, told, last = self._beats, 0.0, 0, time.monotonic()
        while not self._is_over:
            every = self._every
            self._news.wait(every)
            self._news.clear()
            passed, last = time.monotonic() - last, time.monotonic()
            if self._beats != seen:
                seen, stood, told = self._beats, 0.0, 0
                continue
            stood += min(passed, max(every, 2 * _LOOK.total_seconds()))  # if longer, the process was stopped
            least = 3 * every if every > _LOOK.total_seconds() else 0.0  # seldom looks may miss a beat
            while told < len(self._limits) and stood >= max(least, self._limits[told].total_seconds()):
                self._look(self._limits[told])
                told += 1

    def _look(self, limit: timedelta) -> None:
        frame = sys._current_frames().get(self._thread)  # noqa: SLF001 - the documented way to see another thread
        if frame is not None and not self._is_over:
            places = places_of_frame(frame)
            own = handlers_place(places) or places[-1]
            self._tell(Standstill(limit, _job_name(frame), str(own), str(places[-1])))


_CALLERS = {"arqonce.execution.attempt", "arqonce.execution.batch", "arqonce.execution.sharing"}


def _job_name(frame: FrameType) -> str | None:
    """Return the job's name from the local variable ``spec`` of an outer frame, in the modules that call handlers."""
    for outer, _ in walk_stack(frame):
        if outer.f_globals.get("__name__") in _CALLERS:
            spec = outer.f_locals.get("spec")
            if isinstance(spec, JobSpec):
                return spec.name
    return None
