"""Walks from an error to its causes. Loads nothing."""

from collections.abc import Iterator


def causes(error: BaseException, *, suppressed: bool = True) -> Iterator[BaseException]:
    """Yield the error, its cause or context, that one's, and so on; each once.

    ``suppressed`` says whether contexts count that ``raise ... from None`` hides: what went wrong is there, though a
    traceback does not show it.
    """
    seen: set[int] = set()  # an error that was raised again may be its own context's cause
    part: BaseException | None = error
    while part is not None and id(part) not in seen:
        seen.add(id(part))
        yield part
        hides = part.__suppress_context__ and not suppressed
        part = part.__cause__ or (None if hides else part.__context__)
