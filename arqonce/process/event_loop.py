"""Chooses the event loop of a process, and runs it until the process's work is done."""

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
    """Return uvloop's event loop factory; ``None`` on Windows, which it does not support: use asyncio's own."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop


def run_to_the_end(runner: asyncio.Runner, work: Coroutine[Any, Any, ResultT], ending: Ending) -> ResultT:
    """Run ``work`` to completion, whatever other tasks and callbacks of the loop raise.

    asyncio propagates SystemExit and KeyboardInterrupt of any task to the caller that runs the loop, and any code may
    call the loop's ``stop``. While ``ending`` handles all signals, none of these is a real request to end, so the loop
    continues.
    """
    loop = runner.get_loop()
    task = loop.create_task(work)
    while True:
        try:
            return loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt, RuntimeError) as error:  # RuntimeError: the loop was stopped
            if task.done() or loop.is_closed() or not ending.is_hearing:
                raise
            _log.error("a task or callback tried to end the process: it lives on", exc_info=error)
            loop.call_soon(ending.listen)
