"""Tells what went wrong without a person's data.

Text of exceptions is left out, because it repeats data (PostgreSQL: "Key (email)=(jane@example.org) already exists"):
an error is told as its types, SQLSTATE, constraint and places in the code, cause by cause.
"""

import traceback
from collections.abc import Iterator
from pathlib import PurePath
from types import TracebackType

from db.environment import SettingsError
from db.faults import constraint_of, sqlstate_of
from jobs.failures import JobError, storable

_SPEAKING = (JobError, SettingsError)
"""Our own errors, whose texts never hold a person's data."""

_FRAMES = 4
"""How many places in the code are shown of each error, innermost last."""


def diagnose(error: BaseException) -> str:
    """Describe an error and its causes in one line."""
    return storable(" <- ".join(_describe(part) for part in _chain(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _describe(error: BaseException) -> str:
    facts = [f"SQLSTATE {state}" for state in [sqlstate_of(error)] if state]
    facts += [constraint for constraint in [constraint_of(error)] if constraint]
    facts += [str(error)] if isinstance(error, _SPEAKING) else []
    text = type(error).__qualname__ + (f" ({', '.join(facts)})" if facts else "")
    places = _places(error.__traceback__)
    return f"{text} at {' > '.join(places)}" if places else text


def _places(trace: TracebackType | None) -> list[str]:
    frames = traceback.extract_tb(trace)[-_FRAMES:]
    return [f"{'/'.join(PurePath(frame.filename).parts[-2:])}:{frame.lineno} {frame.name}" for frame in frames]
