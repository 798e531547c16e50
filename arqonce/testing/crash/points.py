"""Crash points: counts where a job's process can die, and ends the process at one of them. Runs inside the worker.

There is a point before and after each answer that the job's own coroutine, or a task that it starts, waits for, and on
both sides of each commit. Between an answer and the next request nothing leaves the process, so that is one point.
Of the worker, this knows only which coroutine runs a job.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from arqonce.work import Observer

QUIET, WORK = signal.SIGWINCH, signal.SIGCONT
"""Signals to a worker that stands by. Before it hears them they do nothing."""

_EXIT_CODE = 137
"""The exit code that a shell reports for a process killed by SIGKILL."""

_TRAIL = 8
"""How many of the last statements and commits the report of a crash contains."""

_STANDARD_LIBRARY = str(Path(os.__file__).parent)

_in_job: ContextVar[bool] = ContextVar("_in_job", default=False)
"""True in a job's task and in every task that it starts. The worker's own tasks do not count."""

Report = Callable[[dict[str, Any]], None]
AnyCoroutine = Coroutine[Any, Any, Any]


class Moment(Enum):
    """When a process dies, relative to what the job awaits."""

    BEGINS = "before its first step"
    SENT = "after what it awaits was sent, before the answer"
    ANSWERED = "after the answer, before anything else is sent"
    COMMITS = "right before COMMIT is sent"
    COMMITTED = "after COMMIT was answered, before anything else is sent"


class Points:
    """Reports every point that a job reaches, and ends the process at the point ``crash_at``.

    A point's name consists of file and line, moment, and how often these were reached. Points are not numbered, because
    numbers would differ between runs: a job does not wait for an answer that has already arrived.
    """

    def __init__(self, report: Report, crash_at: str | None) -> None:
        """Begin before the first point. ``report`` sends reports; without ``crash_at``, points are not reported."""
        self._report = report
        self._crash_at = crash_at
        self._reached: Counter[str] = Counter()
        self._done: list[str] = []
        self.tasks = 0
        """How many tasks jobs have started."""

    def reach(self, moment: Moment, where: Callable[[], str]) -> None:
        """Report a point; die if it is ``crash_at``."""
        if self._is_the_one(moment, where):
            os._exit(_EXIT_CODE)

    def reach_soon(self, moment: Moment, where: Callable[[], str]) -> None:
        """Report a point that comes after the event loop's next poll, because uvloop writes only then."""
        if self._is_the_one(moment, where):
            asyncio.get_running_loop().call_soon(os._exit, _EXIT_CODE)

    def note(self, what: str) -> None:
        """Remember a statement or a commit."""
        self._done = [*self._done[1 - _TRAIL :], what]

    def start(self) -> None:
        """Report that the worker is ready."""
        self._report({"event": "ready", "at": time.monotonic()})

    def begin(self) -> None:
        """Report that a job begins."""
        self._report({"event": "begun", "at": time.monotonic()})

    def end(self) -> None:
        """Report that jobs have ended and are recorded."""
        self._report({"event": "through"})

    def change(self, *, is_quiet: bool) -> None:
        """Report that the worker claims nothing more, or claims again."""
        self._report({"event": "quiet" if is_quiet else "at work"})

    def _is_the_one(self, moment: Moment, where: Callable[[], str]) -> bool:
        if self._crash_at is None:
            return False
        name = f"{where()}, {moment.value}"
        self._reached[name] += 1
        if self._reached[name] > 1:
            name += f" (time {self._reached[name]})"
        is_the_one = name == self._crash_at
        told = {"event": "crash", "done": self._done, "at": time.monotonic()} if is_the_one else {"event": "point"}
        self._report(told | {"point": name})
        return is_the_one


class _Counted:
    """An awaitable that replaces a coroutine and counts its suspensions."""

    def __init__(self, coroutine: AnyCoroutine, points: Points) -> None:
        """Wrap a coroutine that has not begun."""
        self._coroutine = coroutine
        self._points = points
        self._has_begun = False
        self._waits_for_task = False  # one of the job's tasks: its steps are counted, waiting for it is not

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return itself; ``__next__`` makes the steps."""
        return self  # type: ignore[return-value] # has all that await needs of a generator

    def __iter__(self) -> "_Counted":
        """Return itself."""
        return self

    def __next__(self) -> Any:  # noqa: ANN401 - what the coroutine awaits
        """Make the next step."""
        return self._step(self._coroutine.send, None)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - what the coroutine awaits
        """Make the next step with an error, such as a cancellation."""
        return self._step(self._coroutine.throw, *error)

    def close(self) -> None:
        """End the coroutine."""
        self._coroutine.close()

    def _step(self, resume: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - what the coroutine awaits
        if not self._waits_for_task:
            self._points.reach(Moment.ANSWERED if self._has_begun else Moment.BEGINS, self._where)
        self._has_begun = True
        tasks = self._points.tasks
        awaited = resume(*arguments)  # StopIteration is not caught: the coroutine has ended
        self._waits_for_task = tasks != self._points.tasks
        if not self._waits_for_task:
            self._points.reach_soon(Moment.SENT, self._where)
        return awaited

    def _where(self) -> str:
        return describe(self._coroutine)


def describe(coroutine: AnyCoroutine) -> str:
    """Return file and line of a suspended coroutine's await: the innermost in application code, and the innermost."""
    frames = []
    current: Any = coroutine
    while current is not None:
        frame = getattr(current, "cr_frame", None) or getattr(current, "gi_frame", None)
        if frame is not None:
            frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        current = getattr(current, "cr_await", None) or getattr(current, "gi_yieldfrom", None)
    ours = [frame for frame in frames if not _is_library(frame[0])]
    return " > ".join(dict.fromkeys(_name(frame) for frame in (*ours[-1:], *frames[-1:])))


def _is_library(file: str) -> bool:
    return "site-packages" in file or file.startswith((_STANDARD_LIBRARY, "<"))


@cache
def _name(frame: tuple[str, int, str]) -> str:
    file, line, function = frame
    roots = [root for root in map(os.path.abspath, sys.path) if file.startswith(root + os.sep)]
    short = os.path.relpath(file, max(roots, key=len)) if roots else Path(file).name
    return f"{short}:{line} in {function}"


class PointsObserver(Observer):
    """Counts the points of every job that an engine runs, and of the calls that record how jobs end."""

    def __init__(self, points: Points, *, stands_by: bool) -> None:
        """Count commits of this process from now on, too. A worker that ``stands_by`` begins quiet."""
        self._points = points
        self._stands_by = stands_by
        _watch_commits(points)

    def ready(self, be_quiet: Callable[[bool], bool]) -> None:
        """Report it, and hear the signals to be quiet and to work from now on."""

        def change(is_quiet: bool) -> None:  # noqa: FBT001 - as that of the engine
            be_quiet(is_quiet)
            self._points.change(is_quiet=is_quiet)

        if self._stands_by:
            be_quiet(True)  # noqa: FBT003 - the engine's
            for number in (QUIET, WORK):
                asyncio.get_running_loop().add_signal_handler(number, change, number == QUIET)
        self._points.start()

    def running(self, run: AnyCoroutine) -> AnyCoroutine:
        """Count the steps of a run."""
        return self._watched(run, begins=True)

    def recording(self, record: AnyCoroutine) -> AnyCoroutine:
        """Count the steps of the recorder."""
        return self._watched(record, begins=False)

    def recorded(self) -> None:
        """Report it."""
        self._points.end()

    async def _watched(self, coroutine: AnyCoroutine, *, begins: bool) -> Any:  # noqa: ANN401 - the coroutine's
        asyncio.get_running_loop().set_task_factory(_task_factory(self._points))
        _in_job.set(True)
        if begins:
            self._points.begin()
        return await _Counted(coroutine, self._points)


def _task_factory(points: Points) -> Callable[..., asyncio.Task[Any]]:
    async def count(coroutine: AnyCoroutine) -> Any:  # noqa: ANN401 - the coroutine's
        return await _Counted(coroutine, points)

    def make_task(loop: AbstractEventLoop, coroutine: AnyCoroutine, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401 - asyncio's
        if _in_job.get():
            points.tasks += 1
            coroutine = count(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)

    return make_task


def _watch_commits(points: Points) -> None:
    def say_commit() -> str:
        return "a transaction of the job"

    @event.listens_for(Engine, "after_cursor_execute")
    def _note(_connection: Connection, _cursor: object, statement: str, *_: object) -> None:
        if _in_job.get():
            points.note(" ".join(statement.split())[:60])

    @event.listens_for(Engine, "commit")
    def _commits(_connection: Connection) -> None:
        if _in_job.get():
            points.reach(Moment.COMMITS, say_commit)

    @event.listens_for(Session, "after_commit")
    def _committed(_session: Session) -> None:
        if _in_job.get():
            points.note("COMMIT")
            points.reach(Moment.COMMITTED, say_commit)
