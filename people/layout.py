"""Finds out how a file of people is written, by reading all of it once. Stores nothing."""

import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import BinaryIO

from people.columns import Columns, Mapping, count_recognised, find_columns, is_western, names_people
from people.encoding import GUESSED, doubt_about, encoding_of, errors_of, readable
from people.records import DELIMITERS, Lines, Record, take_delimiter, take_records
from people.rows import PeopleFileError, printable

REASON = "refused because"
"""The column that is added to refused rows. It is dropped when they are read again."""

_LONGEST_HEADER = 50
"""Lines in which a header ends: names of columns may have line breaks, and titles and empty lines may precede them."""


@dataclass(frozen=True)
class Layout:
    """How a file is written, and where in it people are."""

    encoding: str
    delimiter: str
    header: list[str]
    columns: Columns
    header_line: int = 1
    has_titles: bool = False
    """Whether something stands above the header, and is not read."""
    rows: int = 0

    def records(self, lines: Lines) -> Iterator[Record]:
        """Yield the records below the header, not those that repeat it, as where files were joined."""
        take_delimiter(lines)
        for record in take_records(lines, self.delimiter):
            if record.line > self.header_line and not _is_same(record.values, self.header):
                yield record

    @property
    def width(self) -> int:
        """The number of columns without those at the end that have no name."""
        return max(at for at, column in enumerate(self.header, start=1) if column.strip())

    def own(self, values: Sequence[str]) -> list[str]:
        """Return the values of a row without the reason of an earlier import, all of them readable."""
        reasons = {at for at, column in enumerate(self.header) if column.strip() == REASON}
        return [readable(value, self.encoding) for at, value in enumerate(values) if at not in reasons]


@contextmanager
def open_lines(binary: BinaryIO, encoding: str, where: str) -> Iterator[Lines]:
    """Open the text of a file, from its beginning. The file stays open."""
    binary.seek(0)
    text = io.TextIOWrapper(binary, encoding, errors_of(encoding), newline="")
    try:
        yield Lines(text, where)
    finally:
        text.detach()


def find_layout(binary: BinaryIO, where: str, *, encoding: str | None, mappings: Sequence[Mapping]) -> Layout:
    """Read all of the file. ``encoding`` and ``mappings`` are what a person has decided.

    Raises:
        PeopleFileError: it is no list of people, or its columns or its encoding are in doubt.
    """
    is_guess = encoding is None
    encoding = encoding_of(binary, declared=encoding, where=where)
    is_guess = is_guess and encoding == GUESSED
    with open_lines(binary, encoding, where) as lines:
        head = _find_head(lines, mappings)
    doubts = _Doubts(head.header.values, where, is_western(head.header.values)) if is_guess else None
    if doubts:
        doubts.look(head.header, range(len(head.header.values)))
    columns = head.columns(mappings, where)
    layout = Layout(encoding, head.delimiter, head.header.values, columns, head.header.line, bool(head.above))
    rows = 0
    with open_lines(binary, encoding, where) as lines:
        for record in layout.records(lines):  # all of them: what is no text or no CSV file is found here
            rows += 1
            if doubts:
                doubts.look(record, columns.used)
    return replace(layout, rows=rows)


@dataclass(frozen=True)
class _Doubts:
    """Looks for values of a file, whose encoding was guessed, that may mean something else."""

    header: Sequence[str]
    where: str
    is_western: bool

    def look(self, record: Record, columns: Iterable[int]) -> None:
        """Raise ``PeopleFileError`` at the first value in these columns that is in doubt."""
        for at in columns:
            value = record.values[at] if at < len(record.values) else ""
            if not value.isascii() and (doubt := doubt_about(value, is_western=self.is_western)):
                readings = [f"{printable(reading)} in {encoding}" for encoding, reading in doubt.readings]
                options = ", ".join(f"--encoding {encoding}" for encoding, _ in doubt.readings)
                raise PeopleFileError(
                    f"the encoding of {self.where} is in doubt: in line {record.line}, column "
                    f"{printable(readable(self.header[at], GUESSED))}, stands {', '.join(readings[:-1])}, and "
                    f"{readings[-1]}. Nothing was stored. Choose with {options}, or another one"
                )


@dataclass(frozen=True)
class _Head:
    """The beginning of a file, split at one delimiter: a header, what stands above it, and the first row."""

    delimiter: str
    above: Sequence[Record]
    header: Record
    example: Sequence[str]
    is_named: bool

    def columns(self, mappings: Sequence[Mapping], where: str) -> Columns:
        """Find the columns of the header. Nobody may stand above it."""
        if any("@" in value for record in self.above for value in record.values):
            text = f"line {self.header.line} of {where} names its columns, and e-mail addresses stand above it"
            raise PeopleFileError(f"{text}: make it the first line, or remove those above it")
        if not self.is_named:
            _require_columns(self.header, where)
        return find_columns(self.header.values, mappings, example=self.example, where=where)


def _find_head(lines: Lines, mappings: Sequence[Mapping]) -> _Head:
    """Find the header, and the delimiter with which most of its columns are recognised; of several, with most columns.

    The header is the first record with columns for name and e-mail, or the first of all: titles may stand above it.
    """
    named = take_delimiter(lines)
    first = lines.number + 1
    head = "".join(itertools.takewhile(bool, (lines.take() for _ in range(_LONGEST_HEADER))))

    def split(delimiter: str) -> _Head:
        again = Lines(io.StringIO(head, newline=""), "the header", first)
        records = list(take_records(again, delimiter)) or [Record(1, [])]
        at = next((at for at, record in enumerate(records) if names_people(record.values, mappings)), None)
        following = records[(at or 0) + 1 :]
        example = following[0].values if following else ()
        return _Head(delimiter, records[: at or 0], records[at or 0], example, at is not None)

    def fits(head: _Head) -> tuple[bool, int, int]:
        values = head.header.values
        return head.is_named, count_recognised(values, mappings), len(values)

    return max(map(split, [named] if named else DELIMITERS), key=fits)


def _require_columns(header: Record, where: str) -> None:
    """Raise ``PeopleFileError`` for a header that is one value, because the delimiter or quotes are others."""
    if len(header.values) > 1:
        return
    value = header.values[0] if header.values else ""
    signs = dict.fromkeys(sign for sign in value if not sign.isalnum() and sign not in ' _"')
    if sign := next((sign for sign in signs if names_people(value.split(sign), ())), None):
        text = f"{where} has one column, {printable(value)}: "
        if sign in DELIMITERS and header.line == 1:
            text += "each line is one value in quotes, as where CSV was pasted into one column of Excel: split the "
            raise PeopleFileError(f"{text}column there (Data, Text to Columns), and save it again")
        text += f"its delimiter seems to be {sign!r}: write sep={sign} into a first line of its own"
        raise PeopleFileError(text)


def _is_same(values: Sequence[str], header: Sequence[str]) -> bool:
    if values[0].strip(" \ufeff") != header[0].strip():  # as in nearly all rows
        return False
    return [value.strip(" \ufeff") for value in values] == [value.strip() for value in header]
