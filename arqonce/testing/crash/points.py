"""Crash points: counts where a job's process can die, and ends the process at one of them. Runs inside the worker.

A point lies before and behind each answer that the job's own coroutine, or a task that it starts, waits for, and on
both sides of each commit. From one answer to the next request nothing leaves the process, so these are one point.
Knows of the worker only which coroutine runs a job.
"""

import asyncio
import os
import sys
import time
from asyncio import AbstractEventLoop
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar
from enum import Enum
from functools import cache, wraps
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session

from arqonce.engine.batch_run import BatchRun
from arqonce.engine.job_run import JobRun
from arqonce.engine.recorder import Finisher
from arqonce.process.lifecycle import Lifecycle

_ROOTS: tuple[tuple[type, str], ...] = ((JobRun, "run"), (BatchRun, "run"))
"""The coroutine functions that run a claimed job, or many together: what to adapt if the worker changes."""

_FINISH: tuple[type, str] = (Finisher, "_run")
"""The coroutine function that records how jobs have ended. It runs in a task that they start, so it is counted, too."""

_START: tuple[type, str] = (Lifecycle, "startup")
"""The coroutine function after which a worker claims jobs."""

_EXIT_CODE = 137
"""What a shell says of a process that was killed by SIGKILL."""

_TRAIL = 8
"""How many of the last statements and commits a crash tells."""

_STANDARD_LIBRARY = str(Path(os.__file__).parent)

_in_job: ContextVar[bool] = ContextVar("_in_job", default=False)
"""Set in a job's task and so in every task that it starts; those of the worker itself do not count."""

Report = Callable[[dict[str, Any]], None]
AnyCoroutine = Coroutine[Any, Any, Any]


class Moment(Enum):
    """When a process dies, seen from what the job awaits."""

    BEGINS = "before its first step"
    SENT = "after what it awaits was sent, before the answer"
    ANSWERED = "after the answer, before anything else is sent"
    COMMITS = "right before COMMIT is sent"
    COMMITTED = "after COMMIT was answered, before anything else is sent"


class Points:
    """Tells every point that a job reaches, and ends the process at the one of this name.

    A point's name is file and line, moment, and how often that was reached before: numbers of points would differ
    between runs, because an answer that is there already is not waited for.
    """

    def __init__(self, report: Report, crash_at: str | None) -> None:
        """Begin before the first point. ``report`` takes what shall be known outside; ``None`` tells of no points."""
        self._report = report
        self._crash_at = crash_at
        self._reached: Counter[str] = Counter()
        self._done: list[str] = []
        self.tasks = 0
        """How many tasks jobs have started."""

    def reach(self, moment: Moment, where: Callable[[], str]) -> None:
        """Tell a point; die here if it is the one."""
        if self._is_the_one(moment, where):
            os._exit(_EXIT_CODE)

    def reach_soon(self, moment: Moment, where: Callable[[], str]) -> None:
        """Tell a point that lies behind the event loop's next look at its sockets: uvloop writes only then."""
        if self._is_the_one(moment, where):
            asyncio.get_running_loop().call_soon(os._exit, _EXIT_CODE)

    def note(self, what: str) -> None:
        """Remember what has been done."""
        self._done = [*self._done[1 - _TRAIL :], what]

    def start(self) -> None:
        """Tell that the worker is ready."""
        self._report({"event": "ready", "at": time.monotonic()})

    def begin(self) -> None:
        """Tell that a job begins."""
        self._report({"event": "begun", "at": time.monotonic()})

    def end(self) -> None:
        """Tell that jobs have run through, their finish included."""
        self._report({"event": "through"})

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
    """A coroutine whose every suspension is counted. Awaited in the place of the coroutine."""

    def __init__(self, coroutine: AnyCoroutine, points: Points) -> None:
        """Wrap a coroutine that has not begun."""
        self._coroutine = coroutine
        self._points = points
        self._has_begun = False
        self._waits_for_task = False  # a task of the job's own: its steps are counted, and waiting for it is no more

    def __await__(self) -> Generator[Any, Any, Any]:
        """Return itself: the steps are made below."""
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
        awaited = resume(*arguments)  # StopIteration passes through: the coroutine has ended
        self._waits_for_task = tasks != self._points.tasks
        if not self._waits_for_task:
            self._points.reach_soon(Moment.SENT, self._where)
        return awaited

    def _where(self) -> str:
        return describe(self._coroutine)


def describe(coroutine: AnyCoroutine) -> str:
    """Name file and line of the await that a suspended coroutine is in: the innermost of ours, and the innermost."""
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


def watch_jobs(points: Points) -> None:
    """Count the points of every job that this process runs from now on. Patches the worker: for a process of a test."""
    owner, name = _START
    setattr(owner, name, _followed(getattr(owner, name), points.start))
    for owner, name in _ROOTS:
        setattr(owner, name, _watched(getattr(owner, name), points))
    owner, name = _FINISH
    setattr(owner, name, _followed(getattr(owner, name), points.end))
    _watch_commits(points)


def _followed(function: Callable[..., AnyCoroutine], tell: Callable[[], None]) -> Callable[..., AnyCoroutine]:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the wrapped function's
        await function(*args, **kwargs)
        tell()

    return run


def _watched(function: Callable[..., AnyCoroutine], points: Points) -> Callable[..., AnyCoroutine]:
    @wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - the wrapped function's
        asyncio.get_running_loop().set_task_factory(_task_factory(points))
        _in_job.set(True)
        points.begin()
        return await _Counted(function(*args, **kwargs), points)

    return run


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
