"""Chooses the event loop of a process, and runs it to the end of its work."""

import asyncio
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from arqonce.process.ending import Ending

ResultT = TypeVar("ResultT")

_log: structlog.stdlib.BoundLogger = structlog.get_logger("arqonce.process.event_loop")


def fastest_loop() -> Callable[[], AbstractEventLoop] | None:
    """Return what makes an event loop: uvloop's where it exists, ``None`` for asyncio's own on Windows."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop


def run_to_the_end(runner: asyncio.Runner, work: Coroutine[Any, Any, ResultT], ending: Ending) -> ResultT:
    """Run ``work``, whatever other tasks and callbacks of the loop raise.

    asyncio lets SystemExit and KeyboardInterrupt of any task, also of one that a handler has started and left, through
    to whoever runs the loop, and anybody may call the loop's ``stop``. While ``ending`` hears all signals, so that it
    was none, the loop goes on.
    """
    loop = runner.get_loop()
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:  # the last one for a loop that was stopped
            if task.done() or loop.is_closed() or not ending.is_hearing:
                raise
            _log.error("a task or callback tried to end the process: it lives on", exc_info=error)
            loop.call_soon(ending.listen)
