"""States what a message, a result and a name may be, once for every way in. Knows no queue and no database.

Producers check a payload before they send it, workers check a message that another language has written, and a result
is checked before its transaction commits. All of them use the rules here, so that they decide alike.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from decimal import Decimal

from pydantic import BaseModel
from pydantic_core import from_json

from arqonce.failures import InvalidMessageError, MessageTooLargeError

MAX_BYTES = 1024 * 1024
"""Largest message, in bytes. Store larger data in a table or a file, and send its key."""

MOST_RESULT_BYTES = MAX_BYTES - 4096
"""Largest result, in bytes. The rest is reserved for arq's fields."""

MOST_LEVELS = 198
"""Most lists and objects inside each other in one field. Parsers, ours included, accept 200 levels in a message."""

TOO_DEEP = f"has more than {MOST_LEVELS} lists and objects inside each other, which few parsers read: flatten it"

MOST_DIGITS = 4300
"""Longest integer that Python and pydantic parse, in digits (``sys.get_int_max_str_digits``)."""

LONGEST_NAME = 200
"""Longest name of a queue or of a job, in characters. A notification of PostgreSQL holds 8,000 bytes."""

_TAKEN = ("arq:job:", "arq:result:", "arq:in-progress:", "arq:retry:", "arq:abort", "arqonce:")
_OF_QUEUES = (":leases", ":watcher", ":baton", ":health-check")
"""Beginnings and ends of other keys: a worker would take what it finds there for jobs."""

TOO_MANY_DIGITS = f"has an integer of more than {MOST_DIGITS:,} digits, which few parsers read: use a str"

_TOO_LARGE = 10**MOST_DIGITS

_DIGITS = re.compile(rb"(?<!\d)\d{%d}" % (MOST_DIGITS + 1))
"""Matches an integer that is too long, and tries each number once. May also match inside a string."""

_DEEP = 100
"""A message with more lists and objects than this may have too many levels."""

_ZERO = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of U+0000 in JSON, but not an escaped backslash before the letters u0000."""


def require_small(data: bytes) -> None:
    """Check the size of a message.

    Raises:
        MessageTooLargeError: it is too large; the text names the cure.
    """
    if len(data) > MAX_BYTES:
        raise MessageTooLargeError(
            f"the message has {len(data):,} bytes, more than the {MAX_BYTES:,} allowed: split it into several jobs, "
            "or store the data and send its key"
        )


def may_be_unfit(data: bytes, *, was_parsed: bool = False) -> bool:
    """Return whether JSON has a value that may not be carried although it could be written; ``why_unfit`` finds it.

    What was parsed is not too deep: to look costs as much as to parse it once more.
    """
    if b"\\u0000" in data and _ZERO.search(data):
        return True
    if len(data) > MOST_DIGITS and _DIGITS.search(data):
        return True
    if was_parsed or len(data) <= 2 * _DEEP or data.count(b"[") + data.count(b"{") <= _DEEP:
        return False
    try:
        from_json(data)
    except ValueError:
        return True
    return False


def unfit_field(fields: Mapping[str, object]) -> tuple[str, str] | None:
    """Return the first field with a value that may not be carried, and why; ``None`` if all are fit."""
    for name, value in fields.items():
        if why := why_unfit(value):
            return name, why
    return None


def why_unfit(value: object) -> str | None:
    """Return why a value may not be carried, without the value; ``None`` if it is fit."""
    waiting = [(value, 0)]
    while waiting:
        part, level = waiting.pop()
        if isinstance(part, BaseModel) or (is_dataclass(part) and not isinstance(part, type)):
            part = vars(part) if hasattr(part, "__dict__") else {}
        if isinstance(part, Mapping):
            inner = [*part, *part.values()]
        elif isinstance(part, list | tuple | set | frozenset):
            inner = list(part)
        elif why := _why_unfit_itself(part):
            return why
        else:
            continue
        if level == MOST_LEVELS:
            return TOO_DEEP
        waiting += [(one, level + 1) for one in inner]
    return None


def _why_unfit_itself(value: object) -> str | None:
    if isinstance(value, str):
        if "\0" in value:
            return "has the character U+0000, which PostgreSQL cannot store: remove it, or encode the value (base64)"
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return "has half of a surrogate pair, which UTF-8 cannot represent: decode the text with its encoding"
    if isinstance(value, Decimal) and value.is_nan():
        return "is NaN, which equals nothing: use None, or a str"
    if isinstance(value, float) and not math.isfinite(value):
        return "is infinite or NaN, which JSON cannot represent: use None, or a str"
    if isinstance(value, int) and abs(value) >= _TOO_LARGE:
        return TOO_MANY_DIGITS
    return None


def is_name(value: object) -> bool:
    """Return whether a queue or a job may have this name."""
    return isinstance(value, str) and value.isprintable() and 1 <= len(value) <= LONGEST_NAME


NAME_RULE = f"1 to {LONGEST_NAME} printable characters"


def require_queue(name: str) -> str:
    """Return the queue's name.

    Raises:
        InvalidMessageError: no queue may have it.
    """
    if not is_name(name):
        raise InvalidMessageError(f"the queue's name must be {NAME_RULE}")
    if name.startswith(_TAKEN) or name.endswith(_OF_QUEUES):
        raise InvalidMessageError(
            "the queue's name is that of a key with another purpose: choose one such as arq:queue"
        )
    return name
