"""Describes errors without personal data.

Leaves out the text of exceptions, which repeats data (PostgreSQL: "Key (email)=(jane@example.org) already exists").
Describes an error and each of its causes by type, SQLSTATE, constraint and places in the code.
"""

from types import TracebackType

from arqonce.causes import causes
from arqonce.database.faults import constraint_of, sqlstate_of
from arqonce.environment import SettingsError
from arqonce.execution.places import handlers_place, places_of_trace
from arqonce.execution.verdict import WrongResultError
from arqonce.failures import JobError, JobFailedError, is_own_code, storable
from arqonce.running import ReadOnlyJobError

_SPEAKING = (JobError, SettingsError, WrongResultError, ReadOnlyJobError)
"""Our own errors, whose texts never contain personal data; and failures that handlers choose, whose texts may."""

_FRAMES = 4
"""Places in the code shown for each error, innermost last; the handler's own line is always among them."""

_PARTS = 20
"""Errors shown, of a group of many that differ."""


def diagnose(error: BaseException) -> str:
    """Describe an error and its causes in one line."""
    parts = dict.fromkeys(_describe(part) for part in causes(error, suppressed=False))  # many tasks fail alike
    return storable(" <- ".join(list(parts)[:_PARTS]))


def _describe(error: BaseException) -> str:
    facts = [f"SQLSTATE {state}" for state in [sqlstate_of(error)] if state]
    facts += [constraint for constraint in [constraint_of(error)] if constraint]
    facts += [_said(error)] if isinstance(error, _SPEAKING) else []
    text = type(error).__qualname__ + (f" ({', '.join(facts)})" if facts else "")
    places = _places(error.__traceback__)
    return f"{text} at {' > '.join(places)}" if places else text


def _said(error: BaseException) -> str:
    """Return the text of an error of ours; of a failure that a handler has chosen its code."""
    return error.code if isinstance(error, JobFailedError) and not is_own_code(error.code) else str(error)


def _places(trace: TracebackType | None) -> list[str]:
    places = places_of_trace(trace)
    shown, own = places[-_FRAMES:], handlers_place(places)
    if own is not None and own not in shown:
        shown = [own, *shown[1:]]
    return [str(place) for place in shown]
