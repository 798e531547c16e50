"""Frees what the tracebacks of errors keep in memory. Knows no job."""

from typing import TypeVar

from pydantic_core import ValidationError

ErrorT = TypeVar("ErrorT", bound=BaseException)


def without_frames(error: ErrorT) -> ErrorT:
    """Return the error, and those from which it comes, without their tracebacks, when nobody needs them any more.

    Their frames have the job's message, those around it all that was claimed together, and often the error itself: all
    of it would stay until garbage is collected, hundreds of large messages later. Errors of validators, which pydantic
    holds where the collector does not look, would keep it for ever.
    """
    seen = set[int]()
    waiting: list[object] = [error]
    while waiting:
        part = waiting.pop()
        if isinstance(part, BaseException) and id(part) not in seen:
            seen.add(id(part))
            part.with_traceback(None)
            waiting += [part.__cause__, part.__context__]
            if isinstance(part, ValidationError):
                details = part.errors(include_url=False, include_input=False)
                waiting += [detail.get("ctx", {}).get("error") for detail in details]
    return error
