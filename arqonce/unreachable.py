"""Says why a server could not be reached, by the errors that its client has chained. Knows no client."""

import asyncio
import socket
from collections.abc import Iterator

_CLOSED = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError, asyncio.IncompleteReadError, EOFError)


def why_unreachable(error: BaseException) -> str:
    """Return the reason in a few words, without values; the type of the error if nothing better is known."""
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return "the host's name is not known"
        if isinstance(cause, FileNotFoundError):
            return "there is no such socket"
        if isinstance(cause, ConnectionRefusedError):
            return "nothing listens on this port"
        if isinstance(cause, _CLOSED) or "closed by server" in str(cause) or "unexpected connection_lost" in str(cause):
            return "it closes the connection, as another kind of server on this port would"
    return type(error).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
