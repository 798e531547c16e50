"""The beginning of a process: hears signals before anything is loaded. Imports hardly anything.

A SIGTERM that comes while the rest is loaded must end the process too, and as PID 1 of a container Python ignores it
until there is a handler.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

_UNTIL_STOPPED = (["run"], ["relay"], ["dev"])
"""Commands that end with 0 when they are told to stop, also while they are still loading."""

_ONE_ORDER = 0.5
"""Seconds in which several signals are one order to end: shells and supervisors send several at once."""


class _Told(KeyboardInterrupt):
    """An order to end.

    Were it KeyboardInterrupt itself, and left an exec() of a text, as in many imports, Python would die of SIGINT at
    its end, whoever has caught it since.
    """


_interrupted: list[float] = []


def hear_signals() -> None:
    """Let all signals that end a process end it as Ctrl-C does; SIGHUP not where nohup has it ignored."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has but two of them
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            signal.signal(number, _interrupt)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _interrupted or now - _interrupted[-1] > _ONE_ORDER:
        _interrupted.append(now)
        raise _Told


def main(application: str = "arqonce.__main__:APPLICATION") -> None:
    """Run the command line of an application, named as ``module:NAME``, and exit with its code.

    A supervisor's SIGTERM ends ``dev`` and ``demo`` as Ctrl-C does; a worker that is ready replaces the handlers.
    """
    hear_signals()
    try:
        # Containers pay for this twice a minute. Without the variable, a secret file may have the setting.
        if sys.argv[1:] == ["health"] and (file := os.environ.get("WORKER_HEALTH_FILE", "").strip()):
            from arqonce.process.health_file import exit_with_health  # noqa: PLC0415 - see the module's docstring

            exit_with_health(Path(file))
        from arqonce.commands.app import run_app  # noqa: PLC0415 - see the module's docstring

        run_app(application)
    except KeyboardInterrupt:
        # What runs until it is told to stop has just been told so; anything else was broken off.
        sys.exit(0 if sys.argv[1:2] in _UNTIL_STOPPED else 128 + signal.SIGINT)
