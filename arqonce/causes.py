"""Iterates over the causes of an exception. Imports no other module."""

from collections.abc import Iterator

_MOST = 1000
"""So many errors are looked at: a group may have one for each item of a large job."""


def causes(error: BaseException, *, suppressed: bool = True) -> Iterator[BaseException]:
    """Yield the error, its cause or context, the cause's own cause or context, and so on; each once, at most 1,000.

    Causes of a group, as ``asyncio.TaskGroup`` raises it, are first its exceptions. ``suppressed`` includes contexts
    that ``raise ... from None`` hides from tracebacks: they may hold the real cause.
    """
    seen: set[int] = set()  # a re-raised error may form a cycle
    rest: list[BaseException | None] = [error]
    while rest and len(seen) < _MOST:
        part = rest.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        hides = part.__suppress_context__ and not suppressed
        rest.append(part.__cause__ or (None if hides else part.__context__))
        rest += reversed(part.exceptions[:_MOST] if isinstance(part, BaseExceptionGroup) else ())
