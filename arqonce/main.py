"""The entry point of a process: installs signal handlers before it loads anything else. Imports hardly anything.

A SIGTERM that arrives while the rest is loaded must end the process too. As PID 1 of a container, a Python process
ignores it until a handler is installed.
"""

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from arqonce.loading import begin_loading, load_libraries

_UNTIL_STOPPED = (["run"], ["relay"], ["dev"], ["console"])
"""Commands that exit with 0 on a signal to stop, even while they are still loading."""

_ONE_ORDER = 0.5
"""Several signals within this many seconds count as one: shells and supervisors send several at once."""


class _Told(KeyboardInterrupt):
    """Raised by the handlers of signals that end the process.

    Not KeyboardInterrupt itself: if that leaves an exec() of source text, as many imports use, Python kills itself
    with SIGINT at exit, even if the exception was caught.
    """


_interrupted: list[float] = []


def hear_signals() -> None:
    """Make all terminating signals end the process as Ctrl-C does. SIGHUP stays ignored under nohup."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"):
        number = getattr(signal, name, None)  # Windows has only two of them
        if number is not None and (name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN):
            signal.signal(number, _interrupt)


def hold_standard_files() -> None:
    """Put the null device where standard input, output or error was closed, as some supervisors leave them.

    Otherwise the next socket would get its number: libuv aborts the process on that, and others write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - a number


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    now = time.monotonic()
    if not _interrupted or now - _interrupted[-1] > _ONE_ORDER:
        _interrupted.append(now)
        raise _Told


def main(application: str = "arqonce.__main__:APPLICATION") -> None:
    """Run the command line of an application, named as ``module:NAME``, and exit with its code.

    A supervisor's SIGTERM ends ``dev`` and ``demo`` as Ctrl-C does; a worker that is ready replaces the handlers.
    """
    hold_standard_files()
    hear_signals()
    try:
        if sys.argv[1:] == ["health"]:  # a shortcut: containers run this twice a minute
            from arqonce.process.health_file import exit_with_health, named_file  # noqa: PLC0415 - as above

            if file := named_file():
                exit_with_health(file)
        begin_loading()
        try:
            load_libraries()
            from arqonce.commands.app import run_app  # noqa: PLC0415 - see the module's docstring
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("arqonce"):
                raise
            sys.exit(f"arqonce: the command needs {error.name}: pip install 'arqonce[worker]'")
        run_app(application)
    except KeyboardInterrupt:
        _exit_as_interrupted()
    except Exception as error:
        if not _comes_of_signal(error):
            raise
        _exit_as_interrupted()


def _exit_as_interrupted() -> NoReturn:
    # For commands that run until a signal this is a normal end; any other command was interrupted.
    sys.exit(0 if sys.argv[1:2] in _UNTIL_STOPPED else 128 + signal.SIGINT)


def _comes_of_signal(error: BaseException | None) -> bool:
    """Return whether a signal's exception is behind the error: Python 3.11 wraps what ``__set_name__`` raises."""
    while error is not None and not isinstance(error, _Told):
        error = error.__cause__ or error.__context__
    return error is not None
