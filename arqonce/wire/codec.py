"""JSON on the wire, both ways: arq's ``job_serializer`` and ``job_deserializer``. Knows arq's fields, not arq.

A job is ``{"t": try or null, "f": name, "a": [], "k": {fields}, "et": enqueued, ms since 1970}``. A result adds ``s``
success, ``r`` result or failure, ``st`` and ``ft`` started and finished in ms, ``q`` queue, ``id``, and a field that
arq does not have: ``h``, the tag of the request that it answers.
Never pickle, which is arq's default: anyone who can write to Redis could run code in the worker.
"""

import json
import math
import re
from asyncio import CancelledError
from collections.abc import Iterator
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from arqonce.failures import InvalidMessageError, failure_from_wire, failure_to_wire

MAX_BYTES = 1024 * 1024
"""Largest message, in bytes. Store larger data in a table or a file, and send its key."""

_MOST_RESULT_BYTES = MAX_BYTES - 4096
"""Largest result, in bytes. The rest is reserved for arq's fields."""

_DEEP = 100
"""A result with more lists and objects than this may exceed the nesting that readers accept (200 levels)."""

_ZERO = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape of U+0000 in JSON, but not an escaped backslash before the letters u0000."""

_MOST_DIGITS = 4300
"""Longest integer that Python and pydantic parse, in digits (``sys.get_int_max_str_digits``)."""

_TOO_MANY_DIGITS = 10**_MOST_DIGITS

_LARGE_NUMBER = re.compile(rb"\d[eE]\+?\d|\d{%d}" % (_MOST_DIGITS + 1))
"""Matches a number that PostgreSQL may print longer, or that is too long to parse. May also match inside a string."""

PICKLE = b"\x80"
"""First byte of a pickle of protocol 2 or later. No JSON text begins with it."""


_TAG = "job_request_tag"


class _Answer(dict[str, Any]):
    """A result with the tag of the request that it answers."""


def tagged(answer: Any, tag: str) -> Any:  # noqa: ANN401 - a result as a dict, or a failure
    """Attach to a result or a failure the tag of the request that it answers (``wire.request_tag``), and return it.

    A failure that already has another request's tag is copied: handlers may raise one object many times.
    """
    if isinstance(answer, dict):
        answer = _Answer(answer)
    elif tag_of(answer) not in {None, tag}:
        answer = failure_from_wire(failure_to_wire(answer))
    object.__setattr__(answer, _TAG, tag)  # an exception may be a frozen dataclass
    return answer


def tag_of(answer: object) -> str | None:
    """Return the tag of the request that a result or a failure answers; ``None`` if it has none."""
    return getattr(answer, _TAG, None)


def encode(message: Any, *, largest: int | None = MAX_BYTES) -> bytes:  # noqa: ANN401 - any JSON value, models and exceptions
    """Serialize a message as JSON. Supports Pydantic models, dates, UUIDs and exceptions.

    Raises:
        InvalidMessageError: it is longer than ``largest`` bytes, or holds a value that JSON cannot represent.
    """
    if isinstance(message, dict) and "s" in message:
        # Arguments may be personal data, and results do not need them; arq would keep them for an hour.
        message = message | {"a": [], "k": {}}
        if (tag := tag_of(message.get("r"))) is not None:
            message["h"] = tag
    try:
        data = to_json(message, fallback=_encode_exception, inf_nan_mode="null")
    except (PydanticSerializationError, ValueError) as error:
        text = f"the message cannot be written as JSON: {error}"
        raise InvalidMessageError(text) from error
    if largest is not None:
        _require_small(data)
    return data


def encode_result(result: dict[str, Any]) -> str:
    """Serialize a result as JSON that PostgreSQL can store, and that every client can read.

    Raises:
        InvalidMessageError: it is too large, or holds a value that one of them cannot represent.
    """
    try:
        data = to_json(result)
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidMessageError(f"it cannot be written as JSON: {error}") from None
    if len(data) > _MOST_RESULT_BYTES:
        text = f"it has {len(data):,} bytes, more than the {_MOST_RESULT_BYTES:,} allowed: store it, and return its key"
        raise InvalidMessageError(text)
    if b"NaN" in data or b"Infinity" in data:
        _require_finite(result)
    if len(data) > _MOST_DIGITS and _LARGE_NUMBER.search(data):  # a shorter text has no such integer and few floats
        _require_storable_numbers(result, len(data))
    if b"\\u0000" in data and _ZERO.search(data):
        raise InvalidMessageError("it has a string with the character U+0000, which PostgreSQL cannot store")
    if len(data) > 2 * _DEEP and data.count(b"[") + data.count(b"{") > _DEEP:
        _require_readable(data)
    return data.decode()


def _require_finite(result: dict[str, Any]) -> None:
    try:
        json.dumps(result, allow_nan=False)
    except ValueError:
        raise InvalidMessageError("it has a number that is infinite or NaN, which JSON cannot represent") from None


def _require_storable_numbers(result: dict[str, Any], size: int) -> None:
    """Reject numbers that make the result too large when PostgreSQL returns it: it prints 1e300 with 300 zeros."""
    for number in _numbers(result):
        if isinstance(number, float):
            size += max(0, int(math.log10(abs(number) or 1)))
        if abs(number) >= _TOO_MANY_DIGITS:
            raise InvalidMessageError(f"it has an integer of more than {_MOST_DIGITS:,} digits: few parsers read it")
    if size > _MOST_RESULT_BYTES:
        text = f"its large floats are {size:,} bytes as PostgreSQL writes them, more than the {_MOST_RESULT_BYTES:,} "
        raise InvalidMessageError(f"{text}allowed: store it, and return its key")


def _numbers(value: object) -> Iterator[float]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, int | float):
            yield part


def _require_readable(data: bytes) -> None:
    try:
        from_json(b'{"r":' + data + b"}")
    except ValueError as error:
        raise InvalidMessageError(f"it cannot be read again: {error}") from None


def decode(data: bytes) -> dict[str, Any]:
    """Parse a message. The result of a failed job is a typed error, which can be raised.

    Raises:
        InvalidMessageError: it is too large, not JSON, or not a JSON object; the text names the cure.
    """
    _require_small(data)
    if data[:1] == PICKLE:
        text = (
            "the message is a pickle, not JSON: its writer must pass job_serializer=arqonce.encode to arq.create_pool"
        )
        raise InvalidMessageError(text)
    try:
        message = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        text = f"the message is not JSON in UTF-8: {error}"
        raise InvalidMessageError(text) from None
    if not isinstance(message, dict):
        text = f"the message is JSON, but not an object: {type(message).__name__}"
        raise InvalidMessageError(text)
    if message.get("s") is False:
        message["r"] = _decode_failure(message.get("r"))
    return message


def _require_small(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        text = (
            f"the message has {len(data):,} bytes, more than the {MAX_BYTES:,} allowed: split it into several jobs, "
            "or store the data and send its key"
        )
        raise InvalidMessageError(text)


def _encode_exception(value: object) -> dict[str, str]:
    if isinstance(value, BaseException):
        return failure_to_wire(value)
    text = f"{type(value).__name__} has no form in JSON"
    raise ValueError(text)


def _decode_failure(failure: object) -> BaseException:
    # arq's Job.abort() recognizes an aborted job by this exception.
    if isinstance(failure, dict) and failure.get("type") == CancelledError.__name__:
        return CancelledError()
    return failure_from_wire(failure)
