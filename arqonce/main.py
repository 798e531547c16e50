"""The entry point of a process: installs signal handlers before it loads anything else. Imports hardly anything."""

import os
import signal
import sys
from typing import NoReturn

from arqonce.interruptions import Told, hear_signals
from arqonce.loading import begin_loading, load_libraries

_UNTIL_STOPPED = ("run", "relay", "dev", "console")
"""Commands that exit with 0 on a signal to stop, even while they are still loading."""


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


def main(application: str = "arqonce.__main__:APPLICATION") -> None:
    """Run the command line of an application, named as ``module:NAME``, and exit with its code.

    A supervisor's SIGTERM ends ``dev`` and ``demo`` as Ctrl-C does; a worker that is ready replaces the handlers.
    """
    hold_standard_files()
    hear_signals(_code_of_signal())
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
    sys.exit(_code_of_signal())


def _code_of_signal() -> int:
    # For commands that run until a signal this is a normal end; any other command was interrupted.
    after = zip(["", *sys.argv[1:]], sys.argv[1:], strict=False)
    command = next((one for before, one in after if one[:1] != "-" and before != "--registry"), None)
    return 0 if command in _UNTIL_STOPPED else 128 + signal.SIGINT


def _comes_of_signal(error: BaseException | None) -> bool:
    """Return whether a signal's exception is behind the error: Python 3.11 wraps what ``__set_name__`` raises."""
    while error is not None and not isinstance(error, Told):
        error = error.__cause__ or error.__context__
    return error is not None
