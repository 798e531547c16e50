"""Builds messages of PostgreSQL's protocol as bytes (PostgreSQL's manual, "Message Formats"). Sends nothing."""

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, TypeAlias

_Value: TypeAlias = str | bytes | int | None
Argument: TypeAlias = _Value | Sequence[_Value]
"""Supported arguments of statements: text, bytea, integer, and arrays of one of these types."""

_ELEMENT_TYPES = {str: 25, bytes: 17, int: 23, type(None): 25}
"""Object ids of PostgreSQL's types (``pg_type``)."""

_INTEGER = struct.Struct("!i")
_NULL = _INTEGER.pack(-1)


def _message(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return kind + struct.pack("!i", len(body) + 4) + body


_EXECUTE = _message(b"E", b"\0", struct.pack("!i", 0))
"""Execute the unnamed portal without a limit of rows."""


@cache
def command(sql: str) -> bytes:
    """Parse, bind and execute a statement without arguments that returns no rows. Cached: pass only constant texts."""
    return _message(b"P", b"\0", sql.encode(), b"\0", bytes(2)) + _message(b"B", b"\0\0", bytes(6)) + _EXECUTE


def execution(statement: str, arguments: Sequence[Argument]) -> bytes:
    """Bind arguments in binary format to a prepared statement, as the unnamed portal, and execute it."""
    fields = map(_field, arguments)
    name = b"\0" + statement.encode() + b"\0"
    return _message(b"B", name, struct.pack("!hhh", 1, 1, len(arguments)), *fields, bytes(2)) + _EXECUTE


def _field(value: Argument) -> bytes:
    """Encode a value, preceded by its length; the length -1 means NULL."""
    if value is None:
        return _NULL
    if isinstance(value, str):
        data = value.encode()
    elif isinstance(value, bytes):
        data = value
    elif isinstance(value, int):
        data = _INTEGER.pack(value)
    else:
        data = _array(value)
    return _INTEGER.pack(len(data)) + data


def _array(values: Sequence[_Value]) -> bytes:
    """Encode an array whose elements are of one type, or NULL."""
    kind = type(next((value for value in values if value is not None), None))
    header = struct.pack("!iiiii", 1, None in values, _ELEMENT_TYPES[kind], len(values), 1)
    return header + b"".join(_ELEMENTS[kind](values))


def _texts(values: Sequence[Any]) -> Iterator[bytes]:
    for value in values:
        if value is None:
            yield _NULL
        else:
            data = value.encode()
            yield _INTEGER.pack(len(data))
            yield data


_ELEMENTS: Mapping[type, Callable[[Sequence[Any]], Iterable[bytes]]] = {
    str: _texts,
    bytes: partial(map, _field),
    int: partial(map, _field),
    type(None): lambda values: [_NULL] * len(values),
}
"""How the elements of an array are encoded, by their type: a receipt has three texts."""
