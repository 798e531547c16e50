"""Writes and reads where a page of a list begins, as text in an address that means nothing to people."""

import base64
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime

from arqonce.connection.queue_listing import QueuePlace
from arqonce.console.asked import PageError
from arqonce.ledger.listing import Place

_MOST_BEHIND = 100_000
"""Jobs with the same time that are passed over. Servers read them all for each page, and anybody may ask for one."""

_LONGEST = 200


def write_place(place: Place | QueuePlace | None) -> str | None:
    """Return the text of a place; ``None`` for none, and for one that is too far among jobs with the same time."""
    if place is None or is_too_far(place):
        return None
    at = place.at.isoformat() if isinstance(place, Place) else place.score
    return base64.urlsafe_b64encode(json.dumps([at, place.behind]).encode()).decode().rstrip("=")


def is_too_far(place: Place | QueuePlace | None) -> bool:
    """Return whether more jobs with the same time come before it than are passed over."""
    return place is not None and place.behind > _MOST_BEHIND


def read_place(text: str | None) -> Place | None:
    """Return a place in a table.

    Raises:
        PageError: the text is none that ``write_place`` has made.
    """
    if text is None:
        return None
    try:
        at, behind = _read(text)
        return Place(datetime.fromisoformat(str(at)).astimezone(UTC), _number(behind))
    except (ValueError, TypeError, OverflowError):
        raise _wrong() from None


def read_queue_place(text: str | None) -> QueuePlace | None:
    """Return a place in a queue.

    Raises:
        PageError: likewise.
    """
    if text is None:
        return None
    try:
        score, behind = _read(text)
        place = QueuePlace(float(str(score)), _number(behind))
    except (ValueError, TypeError, OverflowError):
        raise _wrong() from None
    if math.isnan(place.score):
        raise _wrong()
    return place


def _read(text: str) -> Sequence[object]:
    if len(text) > _LONGEST:
        raise ValueError
    found = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    if not isinstance(found, list):
        raise TypeError
    return found


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MOST_BEHIND:
        raise ValueError
    return value


def _wrong() -> PageError:
    return PageError(400, "This address cannot be read", "after: is not of this page. Begin at its first page.")
