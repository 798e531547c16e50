"""Splits the text of a CSV file into records; a broken one does not spoil the others. Knows no people."""

import csv
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TextIO

from people.rows import PeopleFileError

DELIMITERS = (",", ";", "\t", "|")

_LONGEST_LINE = 1_000_000
"""Characters of a line. A longer one is no list of people, and is not read into memory."""

_LONGEST_RECORD = 100_000
"""Characters of a record of several lines, from which on a quote counts as one that nobody has closed."""

_BLANK = "\0\x1a\ufeff"
"""What programs leave where nothing is: blocks never written, the end of a file of DOS, the marks of joined files."""

_names_delimiter = re.compile(r'"?sep=([^"\w\r\n])"?[\s,;|]*', re.IGNORECASE).fullmatch
"""Excel's own first line."""


class Record(NamedTuple):
    """The values of one record, or of the line that is none."""

    line: int
    values: list[str]
    fault: str | None = None


class Lines:
    """The lines of a text, counted from ``first``, of which some can be put back."""

    def __init__(self, text: TextIO, where: str, first: int = 1) -> None:
        self._text, self._where = text, where
        self._back: list[str] = []
        self.number = first - 1

    def take(self) -> str:
        """Return the next line with its end, an empty string after the last.

        Raises:
            PeopleFileError: the line is too long, or no text.
        """
        line = self._back.pop() if self._back else self._read()
        if line:
            self.number += 1
        return line

    def _read(self) -> str:
        try:
            line = self._text.readline(_LONGEST_LINE)
        except UnicodeError as error:
            text = f"{self._where} is not {self._text.encoding} after line {self.number}: it is cut off or damaged, "
            raise PeopleFileError(f"{text}or another --encoding is right") from error
        if len(line) == _LONGEST_LINE and not line.endswith(("\r", "\n")):
            text = f"line {self.number + 1} of {self._where} has more than {_LONGEST_LINE:,} characters"
            raise PeopleFileError(f"{text}: it is no CSV file")
        return line

    def put_back(self, lines: Sequence[str]) -> None:
        """Let these lines be taken once more."""
        self._back.extend(reversed(lines))
        self.number -= len(lines)


def take_delimiter(lines: Lines) -> str | None:
    """Take Excel's line ``sep=;``, if there is one, and return its delimiter. A byte order mark is dropped."""
    line = lines.take().removeprefix("\ufeff")
    if match := _names_delimiter(line.rstrip("\r\n")):
        return str(match[1])
    if line:
        lines.put_back([line])
    return None


def take_records(lines: Lines, delimiter: str) -> Iterator[Record]:
    """Yield the records, without empty lines. Lines are taken when they are needed."""
    while (record := take_record(lines, delimiter)) is not None:
        yield record


def take_record(lines: Lines, delimiter: str) -> Record | None:
    """Return the next record that is not empty, ``None`` at the end.

    A quote that opens and is not closed, or not closed before a delimiter, spoils its own line alone.
    """
    while True:
        taken: list[str] = []
        start = lines.number + 1
        try:
            values = _values(lines, taken, delimiter)
        except csv.Error as error:
            lines.put_back(taken[1:])
            return Record(start, taken[0].rstrip("\r\n").split(delimiter), f"the row is not CSV: {error}")
        if values is None:
            return None
        if any(value.strip().strip(_BLANK) for value in values):
            return Record(start, values)


def _values(lines: Lines, taken: list[str], delimiter: str) -> list[str] | None:
    values = next(csv.reader(_record_lines(lines, taken), delimiter=delimiter, strict=True), None)
    if not any(value[:1] == " " and value.lstrip(" ")[:1] == '"' for value in values or ()):
        return values
    # Spaces before a quote: the quote counts, unless it was part of a quoted value.
    lines.put_back(taken)
    again: list[str] = []
    try:
        reader = csv.reader(_record_lines(lines, again), delimiter=delimiter, strict=True, skipinitialspace=True)
        without = next(reader, None)
    except csv.Error:
        without = None
    if without is not None and [value.strip() for value in without] != [value.strip() for value in values or ()]:
        taken[:] = again
        return without
    lines.put_back(again)
    for _ in taken:
        lines.take()
    return values


def _record_lines(lines: Lines, taken: list[str]) -> Iterator[str]:
    """Yield lines for as long as the reader of CSV wants more, and note them."""
    length = 0
    while length <= _LONGEST_RECORD and (line := lines.take()):
        taken.append(line)
        length += len(line)
        yield line
