"""Iterates over the causes of an exception. Imports no other module."""

from collections.abc import Iterator


def causes(error: BaseException, *, suppressed: bool = True) -> Iterator[BaseException]:
    """Yield the error, its cause or context, the cause's own cause or context, and so on; each once.

    ``suppressed`` includes contexts that ``raise ... from None`` hides from tracebacks: they may hold the real cause.
    """
    seen: set[int] = set()  # a re-raised error may form a cycle
    part: BaseException | None = error
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        yield part
        hides = part.__suppress_context__ and not suppressed
        part = part.__cause__ or (None if hides else part.__context__)
