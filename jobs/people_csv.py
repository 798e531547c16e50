"""Reads people from a CSV file, line by line, and reports why a line cannot be used. No queue."""

import csv
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from arqonce import UsageError
from arqonce.wire.arguments import problems_of
from jobs.payloads import NewUser

_COLUMNS = ("name", "email")
_DELIMITERS = (",", ";", "\t")
_UTF8_MARK, _UTF16_MARKS = b"\xef\xbb\xbf", (b"\xff\xfe", b"\xfe\xff")


class PeopleFileError(UsageError):
    """The file as a whole cannot be read. The text names the cure."""


class _UnusableError(ValueError):
    """A line cannot be imported. The text gives the reason."""


@dataclass(frozen=True)
class Person:
    """A line that can be imported."""

    line: int
    user: NewUser


@dataclass(frozen=True)
class Refused:
    """A line that cannot be imported. Lines are numbered from 1, the header."""

    line: int
    reason: str
    row: str


def read_people(file: Path) -> Iterator[Person | Refused]:
    """Yield each line of the file in order, without the header and empty lines. Reads the file incrementally.

    The header names the columns ``name`` and ``email``, in any order; the delimiter is a comma, semicolon or tab; the
    encoding is UTF-8. Each line is one person: no field spans lines, so an unclosed quote affects only its own line.

    Raises:
        PeopleFileError: the file does not exist, lacks these columns, or has another encoding.
    """
    try:
        with file.open("rb") as lines:
            layout = _read_header(next(lines, b""), file)
            yield from _read_lines(lines, layout)
    except OSError as error:
        raise PeopleFileError(f"cannot read {file}: {error.strerror}") from error


@dataclass(frozen=True)
class _Layout:
    delimiter: str
    columns: list[str]


def _read_header(line: bytes, file: Path) -> _Layout:
    if line.startswith(_UTF16_MARKS):
        raise PeopleFileError(f"{file} is UTF-16: save it as CSV in UTF-8")
    text = line.removeprefix(_UTF8_MARK).decode("utf-8", "replace")
    delimiter = max(_DELIMITERS, key=text.count)
    columns = [column.strip().strip('"').lower() for column in text.split(delimiter)]
    if repeated := [column for column in _COLUMNS if columns.count(column) > 1]:
        raise PeopleFileError(f"the first line of {file} names a column twice: {', '.join(repeated)}")
    if missing := [column for column in _COLUMNS if column not in columns]:
        raise PeopleFileError(
            f"the first line of {file} must name the columns name,email; missing: {', '.join(missing)}"
        )
    return _Layout(delimiter, columns)


def _read_lines(lines: Iterator[bytes], layout: _Layout) -> Iterator[Person | Refused]:
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        raw = line.rstrip(b"\r\n")
        if not raw.strip():
            continue
        text = _printable(raw)
        try:
            user = _read_person(raw, layout)
        except _UnusableError as error:
            yield Refused(number, str(error), text)
            continue
        first = seen.setdefault(user.email, number) if user.email else number
        yield Person(number, user) if first == number else Refused(number, f"email: the same as on line {first}", text)


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _printable(raw: bytes) -> str:
    """Return the line as text, with invalid bytes and control characters escaped."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(ascii(char)[1:-1] if unicodedata.category(char) in {"Cc", "Cs"} else char for char in text)


def _read_person(raw: bytes, layout: _Layout) -> NewUser:
    try:
        values = next(csv.reader([raw.decode()], delimiter=layout.delimiter, strict=True))
    except UnicodeDecodeError:
        raise _UnusableError("the line is not UTF-8") from None
    except csv.Error as error:
        raise _UnusableError(f"the line is not CSV: {error}") from None
    if len(values) != len(layout.columns):
        raise _UnusableError(f"the line has {_columns(len(values))}, the header {len(layout.columns)}")
    row = dict(zip(layout.columns, values, strict=True))
    try:
        return NewUser(name=row["name"], email=row["email"].strip() or None)
    except ValidationError as error:
        raise _UnusableError(problems_of(error)) from None
