"""Frees what the tracebacks of errors keep in memory. Knows no job."""

from collections.abc import Iterable
from typing import TypeVar

from pydantic_core import ErrorDetails, ValidationError

ErrorT = TypeVar("ErrorT", bound=BaseException)


def without_frames(error: ErrorT, details: Iterable[ErrorDetails] | None = None) -> ErrorT:
    """Return the error, and those from which it comes, without their tracebacks, when nobody needs them any more.

    Their frames have the job's message, those around it all that was claimed together, and often the error itself: all
    of it would stay until garbage is collected, hundreds of large messages later. Errors of validators, which pydantic
    holds where the collector does not look, would keep it for ever. ``details`` are those of a ``ValidationError``, if
    they have been read: it makes them anew, of a large message a million.
    """
    seen = set[int]()
    waiting: list[object] = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseException) and id(part) not in seen:
            seen.add(id(part))
            part.with_traceback(None)
            waiting += [part.__cause__, part.__context__]
            waiting += part.exceptions if isinstance(part, BaseExceptionGroup) else ()
            if isinstance(part, ValidationError):
                read = details if part is error else None
                read = part.errors(include_url=False, include_input=False) if read is None else read
                waiting += [detail["ctx"].get("error") for detail in read if "ctx" in detail]
    return error
