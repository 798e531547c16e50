"""Says why a server could not be reached, by the errors that its client has chained. Knows no client."""

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Iterator

_CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, asyncio.IncompleteReadError, EOFError)

_LOST = "closed by server|unexpected connection_lo|connection was lost"

FOREIGN = "it answers as another kind of server on this port would"

_LOCAL = {
    errno.EMFILE: "this process has too many open files: do jobs leave some open? Else raise ulimit -n or LimitNOFILE",
    errno.ENFILE: "this machine has too many open files: does a program leave some open? Else raise fs.file-max",
    errno.ENOMEM: "this machine has no memory for a connection",
    errno.ENOBUFS: "this machine has no memory for a connection",
}

_ROUTES = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}

_REASONS: tuple[tuple[Callable[[BaseException], object], str], ...] = (
    (lambda cause: isinstance(cause, socket.gaierror), "the host's name is not known"),
    (lambda cause: isinstance(cause, FileNotFoundError), "there is no such socket"),
    (lambda cause: isinstance(cause, ConnectionRefusedError), "nothing listens there"),
    (lambda cause: isinstance(cause, PermissionError), "this account may not connect to it"),
    (lambda cause: getattr(cause, "errno", None) in _ROUTES, "this machine has no way to it"),
    (lambda cause: "TimeoutError" in _names(cause), "it does not answer in time"),
    (lambda cause: re.search("rejected SSL upgrade|Protocol [Ee]rror", str(cause)), FOREIGN),
    (
        lambda cause: isinstance(cause, _CLOSED) or re.search(_LOST, str(cause)),
        "it closes the connection, as another kind of server on this port would",
    ),
)
"""By what the errors of asyncpg, of redis-py's two parsers and of the system are, or say."""


def why_unreachable(error: BaseException) -> str:
    """Return the reason in a few words, without values; the type of the error if nothing better is known."""
    reasons = (reason for cause in _causes(error) for fits, reason in _REASONS if fits(cause))
    return next(reasons, type(error).__name__)


def why_local(error: BaseException) -> str | None:
    """Return what is wrong on this side, with the cure, so that nothing is known of the server; else ``None``."""
    return next((_LOCAL[number] for cause in _causes(error) if (number := getattr(cause, "errno", 0)) in _LOCAL), None)


def _names(cause: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(cause).__mro__}  # redis-py's TimeoutError is none of Python's


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
