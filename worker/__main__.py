"""The command line: ``users-worker``, or ``python -m worker``.

Imports hardly anything at first: a SIGTERM that comes while the rest is loaded must end the process too, and as PID 1
of a container Python ignores it until there is a handler.
"""

import signal
import sys
import time
from types import FrameType

_UNTIL_STOPPED = (["run"], ["relay"], ["dev"])
"""Commands that end with 0 when they are told to stop, also while they are still loading."""


def _hear_signals() -> None:
    """Let all signals that end a process end it as Ctrl-C does; SIGHUP not where nohup has it ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has but two of them
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            signal.signal(number, _interrupt)


class _Told(KeyboardInterrupt):
    """An order to end.

    Were it KeyboardInterrupt itself, and left an exec() of a text, as in many imports, Python would die of SIGINT at
    its end, whoever has caught it since.
    """


_interrupted: list[float] = []


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _interrupted or now - _interrupted[-1] > _ONE_ORDER:  # shells and supervisors send several at once
        _interrupted.append(now)
        raise _Told


_ONE_ORDER = 0.5
"""Seconds in which several signals are one order to end."""


def main() -> None:
    """Run the command line and exit with its code."""
    # A supervisor's SIGTERM ends `dev` and `demo` as Ctrl-C does; a worker that is ready replaces the handlers.
    _hear_signals()
    try:
        from worker.commands.app import run_app  # noqa: PLC0415 - see the module's docstring

        run_app()
    except KeyboardInterrupt:
        # What runs until it is told to stop has just been told so; anything else was broken off.
        sys.exit(0 if sys.argv[1:2] in _UNTIL_STOPPED else 128 + signal.SIGINT)


if __name__ == "__main__":
    main()
