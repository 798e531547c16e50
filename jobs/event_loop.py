"""Chooses the event loop of a process."""

import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable


def fastest_loop() -> Callable[[], AbstractEventLoop] | None:
    """Return what makes an event loop: uvloop's where it exists, ``None`` for asyncio's own on Windows."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - does not exist on Windows

    return uvloop.new_event_loop
