"""Reads a job's message, strictly. Knows arq's fields, not arq."""

from collections.abc import Callable
from typing import Any, NamedTuple

from arqonce.failures import InvalidMessageError
from arqonce.wire.bounds import may_be_unfit, unfit_field
from arqonce.wire.codec import decode
from arqonce.wire.keys import LATEST_MS, is_job_id
from arqonce.wire.trace import NO_TRACE, Carrier, read_trace

MOST_TRIES = 1_000_000
"""Largest number of a try that a message may ask for."""


class Message(NamedTuple):
    """What a message asks for."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tries: int | None
    """The number of the first attempt, if the producer has set one."""

    enqueued_ms: int

    expires_ms: int | None = None
    """When the job expires unless a worker has started it, in ms since 1970."""

    parent: str | None = None
    """The id of the job whose handler promised this one."""

    trace: Carrier = NO_TRACE
    """The trace of which it is part; empty without one, or if that cannot be read."""


_ENVELOPE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "f": (lambda value: isinstance(value, str), "a string: the job's name"),
    "a": (lambda value: isinstance(value, list), "a list: positional arguments, [] if there are none"),
    "k": (lambda value: isinstance(value, dict), "an object: the job's fields by name"),
    "t": (lambda value: value is None or (type(value) is int and 0 <= value < MOST_TRIES), "null"),
    "et": (
        lambda value: type(value) is int and 0 <= value <= LATEST_MS,
        "an integer: when it was enqueued, in ms since 1970",
    ),
    "xt": (
        lambda value: value is None or (type(value) is int and 0 <= value <= LATEST_MS),
        "an integer: when the job expires, in ms since 1970; or missing",
    ),
}
"""What must be in a message, and how it is described."""


def read_envelope(data: bytes) -> dict[str, Any]:
    """Decode a message and check its fields; missing arguments are none.

    Raises:
        InvalidMessageError: it is not JSON, or has a field of a wrong type.
    """
    message = decode(data)
    if _is_usual(message):
        return message
    message = {"t": None, "a": [], "k": {}} | message
    for field, (fits, expected) in _ENVELOPE.items():
        if not fits(message.get(field)):
            text = f"the message's field {field!r} must be {expected}"
            raise InvalidMessageError(text)
    return message


def _is_usual(message: dict[str, Any]) -> bool:
    """Return whether it is a message as our producers write it, which fits: one look, not one for each field."""
    enqueued = message.get("et")
    return (
        type(message.get("f")) is str
        and type(message.get("a")) is list
        and type(message.get("k")) is dict
        and type(enqueued) is int
        and 0 <= enqueued <= LATEST_MS
        and message.get("t", 0) is None
        and "xt" not in message
    )


def read_message(data: bytes) -> Message:
    """Read a job's message.

    Raises:
        InvalidMessageError: it cannot be read; the text names the field.
    """
    message = read_envelope(data)
    named = {"f": message["f"], "a": message["a"]} | message["k"]
    if may_be_unfit(data, was_parsed=True) and (unfit := unfit_field(named)):
        raise InvalidMessageError(f"the message's field {unfit[0]:.60} {unfit[1]}")
    parent = message.get("p")
    return Message(
        message["f"], tuple(message["a"]), message["k"], message["t"], message["et"], message.get("xt"),
        parent if isinstance(parent, str) and is_job_id(parent) else None,
        read_trace(message["tc"]) if "tc" in message else NO_TRACE,
    )  # fmt: skip
