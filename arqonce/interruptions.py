"""Signals that end a process before its command handles them. Imports hardly anything.

A SIGTERM that arrives while modules are loaded must end the process too. As PID 1 of a container, a Python process
ignores it until a handler is installed.
"""

import os
import signal
import time
from types import FrameType
from typing import ClassVar

from arqonce.loading import is_loading

_ONE_ORDER = 0.5
"""Several signals within this many seconds count as one: shells and supervisors send several at once."""


class Told(KeyboardInterrupt):
    """Raised by the handlers of signals that end the process.

    Not KeyboardInterrupt itself: if that leaves an exec() of source text, as many imports use, Python kills itself
    with SIGINT at exit, even if the exception was caught.
    """


class _State:
    code = 0
    times: ClassVar[list[float]] = []


def hear_signals(code: int) -> None:
    """Let all terminating signals end the process as Ctrl-C does, and while it loads at once, with ``code``.

    An exception would be lost in the import system's own callbacks, and becomes another one in modules written in C.
    SIGHUP stays ignored under nohup.
    """
    _State.code = code
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has only two of them
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            signal.signal(number, _interrupt)


def were_told() -> bool:
    """Return whether such a signal has come. Whoever takes signals over asks: what was raised may have been lost."""
    return bool(_State.times)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    if is_loading():
        os._exit(_State.code)  # nothing is open yet
    now = time.monotonic()
    if not _State.times or now - _State.times[-1] > _ONE_ORDER:
        _State.times.append(now)
        raise Told
