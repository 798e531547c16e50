"""How a command ends: its exit code and a one-line error message."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from arqonce.contract.compatibility import ContractError
from arqonce.database.migrate import UnknownRevisionError
from arqonce.database.schema import SchemaError
from arqonce.embedded import EmbeddedServerError
from arqonce.environment import SettingsError
from arqonce.failures import EnqueueError, InvalidPayloadError, JobError, QueueUnavailableError
from arqonce.invocation import as_typed
from arqonce.operations.endpoint import ListenError
from arqonce.process import ending
from arqonce.process.lifecycle import StartupError
from arqonce.process.log_writer import say
from arqonce.resources import ResourceError
from arqonce.usage import UsageError


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

    HELD = ending.HELD
    """A handler, a thread or a hook kept the process from stopping, so it was ended at its time limit."""


_CODES: dict[type[Exception], ExitCode] = {
    SettingsError: ExitCode.SETTINGS,
    StartupError: ExitCode.UNAVAILABLE,
    ResourceError: ExitCode.UNAVAILABLE,
    ListenError: ExitCode.UNAVAILABLE,
    SchemaError: ExitCode.UNAVAILABLE,
    EmbeddedServerError: ExitCode.UNAVAILABLE,
    QueueUnavailableError: ExitCode.UNAVAILABLE,
    InvalidPayloadError: ExitCode.USAGE,
    EnqueueError: ExitCode.USAGE,
    UsageError: ExitCode.USAGE,
    ContractError: ExitCode.USAGE,
    UnknownRevisionError: ExitCode.USAGE,
    JobError: ExitCode.FAILED,
    TimeoutError: ExitCode.FAILED,
}
"""The first matching class determines the code."""


@contextmanager
def explained(program: str) -> Iterator[None]:
    """Turn errors with a known cure into one line on standard error and an exit code; let others through."""
    try:
        yield
    except tuple(_CODES) as error:
        say(f"{program}: {error}")
        if isinstance(error, SettingsError) and all("_URL: is not set" in line for line in str(error).splitlines()):
            say(f"No servers yet? {as_typed(program)} dev starts some, and prints the lines that set both URLs.")
        raise SystemExit(next(code for kind, code in _CODES.items() if isinstance(error, kind))) from None
