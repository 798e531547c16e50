"""How a command ends: its exit code and a one-line error message."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

from arqonce.invocation import as_typed
from arqonce.process.log_writer import say


class ExitCode(IntEnum):
    """Exit codes of the commands, for scripts and supervisors."""

    OK = 0
    """Done."""

    FAILED = 1
    """The job failed, rows of an import were rejected, no result came in time, a process had to be killed, or the
    contract is broken."""

    USAGE = 2
    """The command line or the input is wrong; nothing was done."""

    SETTINGS = 3
    """A setting is missing or wrong."""

    UNAVAILABLE = 4
    """PostgreSQL or Redis is unreachable or rejects us, PostgreSQL lacks our tables, or a resource cannot be opened."""

    HELD = 5
    """A handler, a thread or a hook kept the process from stopping, so it was ended at its time limit."""


_CODES = {
    "arqonce.environment:SettingsError": ExitCode.SETTINGS,
    "arqonce.process.startup_errors:StartupError": ExitCode.UNAVAILABLE,
    "arqonce.resources:ResourceError": ExitCode.UNAVAILABLE,
    "arqonce.operations.endpoint:ListenError": ExitCode.UNAVAILABLE,
    "arqonce.database.schema:SchemaError": ExitCode.UNAVAILABLE,
    "arqonce.embedded.errors:EmbeddedServerError": ExitCode.UNAVAILABLE,
    "arqonce.failures:QueueUnavailableError": ExitCode.UNAVAILABLE,
    "arqonce.failures:InvalidPayloadError": ExitCode.USAGE,
    "arqonce.failures:EnqueueError": ExitCode.USAGE,
    "arqonce.usage:UsageError": ExitCode.USAGE,
    "arqonce.contract.compatibility:ContractError": ExitCode.USAGE,
    "arqonce.database.migrate:UnknownRevisionError": ExitCode.USAGE,
    "arqonce.failures:JobError": ExitCode.FAILED,
    "builtins:TimeoutError": ExitCode.FAILED,
}
"""Codes of errors by the name of their class, so that none is imported for this. The nearest base class counts."""


_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})


def _local(error: Exception) -> str | None:
    """Return what is wrong with this process's surroundings, of which Python raises no class of its own."""
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        limits = "ulimit -u, TasksMax of systemd, pids of a container"
        return f"no thread can be started: raise the limit of processes and threads ({limits})"
    if isinstance(error, FileNotFoundError) and error.filename is None:  # os.getcwd has no name to tell
        return "the current folder was removed: change to another one"
    return None


def _end_without_output(program: str, error: OSError) -> NoReturn:
    """Say that standard output, a file perhaps, takes no more. What is left in its buffer is dropped."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    say(f"{program}: the output cannot be written: {error.strerror}")
    raise SystemExit(ExitCode.FAILED) from None


def _shown(error: Exception) -> str:
    """Return the error's text without what would control a terminal: it may repeat an argument or a file's name."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1] for letter in str(error))


@contextmanager
def explained(program: str) -> Iterator[None]:
    """Turn errors with a known cure into one line on standard error and an exit code; let others through."""
    try:
        yield
    except Exception as error:
        names = (f"{kind.__module__}:{kind.__qualname__}" for kind in type(error).__mro__)
        code = next((_CODES[name] for name in names if name in _CODES), None)
        if code is None:
            if isinstance(error, OSError) and error.errno in _NOT_WRITTEN and error.filename is None:
                _end_without_output(program, error)
            if (problem := _local(error)) is None:
                raise
            say(f"{program}: {problem}")
            raise SystemExit(ExitCode.FAILED) from None
        say(f"{program}: {_shown(error)}")
        if code is ExitCode.SETTINGS and all("_URL: is not set" in line for line in str(error).splitlines()):
            say(f"No servers yet? {as_typed(program)} dev starts some, and prints the lines that set both URLs.")
        raise SystemExit(code) from None
