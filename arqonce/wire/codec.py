"""JSON on the wire, both ways: arq's ``job_serializer`` and ``job_deserializer``. Knows arq's fields, not arq.

A job is ``{"t": try or null, "f": name, "a": [], "k": {fields}, "et": enqueued, ms since 1970}``; arq ignores
three fields more: ``xt``, when it expires, ``p``, the id of the job that promised it, and ``tc``, its trace context. A
result adds ``s``
success, ``r`` result or failure, ``st`` and ``ft`` started and finished in ms, ``q`` queue, ``id``, and a field that
arq does not have: ``h``, the tag of the request that it answers.
Never pickle, which is arq's default: anyone who can write to Redis could run code in the worker.
"""

import math
import re
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

from pydantic import Secret, SecretBytes, SecretStr
from pydantic_core import PydanticSerializationError, from_json, to_json

from arqonce.failures import (
    InvalidMessageError,
    JobAbortedError,
    MessageTooLargeError,
    failure_from_wire,
    failure_to_wire,
)
from arqonce.wire.bounds import (
    MAX_BYTES,
    MOST_DIGITS,
    MOST_RESULT_BYTES,
    TOO_DEEP,
    TOO_MANY_DIGITS,
    may_be_unfit,
    require_small,
    unfit_field,
)
from arqonce.wire.problems import leaves

_EXPONENT = re.compile(rb"\d[eE]\+?\d")
"""Matches a number that PostgreSQL may print longer. May also match inside a string."""

PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or later. No JSON text begins with it."""


def encode(message: Any, *, largest: int | None = MAX_BYTES) -> bytes:  # noqa: ANN401 - any JSON value, models and exceptions
    """Serialize a message as JSON. Supports Pydantic models, dates, UUIDs and exceptions.

    Raises:
        InvalidMessageError: it is longer than ``largest`` bytes, holds a value that JSON cannot represent, or is a job
            with a ``SecretStr``.
    """
    if isinstance(message, dict) and "s" in message:
        # Arguments may be personal data, and results do not need them; arq would keep them for an hour.
        message = message | {"a": [], "k": {}}
    try:
        data = to_json(message, fallback=_encode_exception, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError) as error:
        text = f"the message cannot be written as JSON: {error}"
        raise InvalidMessageError(text) from error
    if largest is not None:
        require_small(data)
    if _MASK in data and "s" not in message and any(isinstance(leaf, _SECRETS) for leaf in leaves(message)):
        raise InvalidMessageError("the message has a SecretStr, of which asterisks would be sent: give its text")
    return data


_SECRETS, _MASK = (Secret, SecretStr, SecretBytes), b"*" * 10
"""Types that pydantic writes as asterisks."""


def encode_result(result: dict[str, Any]) -> str:
    """Serialize a result as JSON that PostgreSQL can store, and that every client can read.

    Raises:
        InvalidMessageError: it is too large, or holds a value that one of them cannot represent; the text names the
            field, and no value.
    """
    try:
        data = to_json(result)
    except (PydanticSerializationError, ValueError) as error:
        raise _unfit(result) or InvalidMessageError(f"it cannot be written as JSON: {error}") from None
    if len(data) > MOST_RESULT_BYTES:
        text = f"it has {len(data):,} bytes, more than the {MOST_RESULT_BYTES:,} allowed: store it, and return its key"
        raise MessageTooLargeError(text)
    if len(data) > MOST_DIGITS and _EXPONENT.search(data):  # a shorter text has few floats
        _require_small_floats(result, len(data))
    if (b"NaN" in data or b"Infinity" in data or may_be_unfit(data)) and (unfit := _unfit(result)):
        raise unfit
    return data.decode()


def is_surely_fit(data: bytes) -> bool:
    """Return whether a result without floats need not be looked at by ``encode_result``: it is short and flat."""
    return len(data) <= MOST_DIGITS and not may_be_unfit(data)


def _unfit(result: dict[str, Any]) -> InvalidMessageError | None:
    found = unfit_field(result)
    return None if found is None else InvalidMessageError(f"its field {found[0]:.60} {found[1]}")


def _require_small_floats(result: dict[str, Any], size: int) -> None:
    """Reject floats that make the result too large when PostgreSQL returns it: it prints 1e300 with 300 zeros."""
    for number in _floats(result):
        size += max(0, int(math.log10(abs(number) or 1))) if math.isfinite(number) else 0
    if size > MOST_RESULT_BYTES:
        text = f"its large floats are {size:,} bytes as PostgreSQL writes them, more than the {MOST_RESULT_BYTES:,} "
        raise MessageTooLargeError(f"{text}allowed: store it, and return its key")


def _floats(value: object) -> Iterator[float]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, float):
            yield part


def decode(data: bytes) -> dict[str, Any]:
    """Parse a message. The result of a failed job is a typed error, which can be raised.

    Raises:
        InvalidMessageError: it is too large, not JSON, or not a JSON object; the text names the cure.
    """
    require_small(data)
    if data[:1] == PICKLE:
        text = (
            "the message is a pickle, not JSON: its writer must pass job_serializer=arqonce.encode to arq.create_pool"
        )
        raise InvalidMessageError(text)
    try:
        message = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidMessageError(f"the message {_why_not_json(error)}") from None
    if not isinstance(message, dict):
        text = f"the message is JSON, but not an object: {type(message).__name__}"
        raise InvalidMessageError(text)
    if message.get("s") is False:
        message["r"] = _decode_failure(message.get("r"))
    return message


def _why_not_json(error: ValueError) -> str:
    if "recursion limit" in str(error):
        return TOO_DEEP
    if "number out of range" in str(error):
        return TOO_MANY_DIGITS
    return f"is not JSON in UTF-8: {error}"


def _encode_exception(value: object) -> dict[str, str]:
    if isinstance(value, BaseException):
        return failure_to_wire(value)
    text = f"{type(value).__name__} has no form in JSON"
    raise ValueError(text)


def _decode_failure(failure: object) -> BaseException:
    # arq's Job.abort() recognizes an aborted job by this exception; workers of the version before write its name.
    if isinstance(failure, dict) and failure.get("type") in {JobAbortedError.code, CancelledError.__name__}:
        return CancelledError()
    return failure_from_wire(failure)
