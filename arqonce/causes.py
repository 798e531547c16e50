"""Iterates over the causes of an exception. Imports no other module."""

from collections.abc import Iterator


def causes(error: BaseException, *, suppressed: bool = True) -> Iterator[BaseException]:
    """Yield the error, its cause or context, the cause's own cause or context, and so on; each once.

    Causes of a group, as ``asyncio.TaskGroup`` raises it, are first its exceptions. ``suppressed`` includes contexts
    that ``raise ... from None`` hides from tracebacks: they may hold the real cause.
    """
    seen: set[int] = set()  # a re-raised error may form a cycle
    rest: list[BaseException | None] = [error]
    while rest:
        part = rest.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        hides = part.__suppress_context__ and not suppressed
        rest.append(part.__cause__ or (None if hides else part.__context__))
        rest += reversed(part.exceptions if isinstance(part, BaseExceptionGroup) else ())
